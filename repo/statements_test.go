package repo_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// statement is one SQL statement of repo or repo/reports.
type statement struct{ name, sql string }

// begins distinguishes a whole statement from a part of one.
var begins = regexp.MustCompile(`^\s*(WITH|SELECT|INSERT|UPDATE|DELETE)\b`)

// statements returns all statements that are made for syncer's own tables: the string
// constants of this package and of reports, put together, without those that are only
// parts of others. A statement that is no constant fails the test.
func statements(t *testing.T) []statement {
	t.Helper()
	return append(statementsIn(t, "."), statementsIn(t, "reports")...)
}

// parsed returns the files of a package without its tests.
func parsed(t *testing.T, positions *token.FileSet, folder string) []*ast.File {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(positions, filepath.Join(folder, entry.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func statementsIn(t *testing.T, folder string) []statement {
	t.Helper()
	positions := token.NewFileSet()
	files := parsed(t, positions, folder)
	// The imports are not needed to put strings together.
	config := types.Config{Error: func(error) {}, Importer: noImports{}, IgnoreFuncBodies: true}
	info := types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	_, _ = config.Check("syncer/repo", positions, files, &info)

	parts := map[types.Object]bool{}
	var constants []*types.Const
	for _, file := range files {
		inConstant := map[ast.Node]bool{}
		for _, declared := range file.Decls {
			decl, ok := declared.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					inConstant[n] = true
				case *ast.Ident:
					if c, ok := info.Defs[n].(*types.Const); ok {
						constants = append(constants, c)
					}
					if used := info.Uses[n]; used != nil {
						parts[used] = true
					}
				}
				return true
			})
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && !inConstant[literal] && isStatement(literal.Value) {
				t.Errorf("%s: a statement that is no constant: %s", positions.Position(literal.Pos()), literal.Value)
			}
			return true
		})
	}
	constants = slices.DeleteFunc(constants, func(c *types.Const) bool { return c.Val().Kind() != constant.String || parts[c] })
	var all []statement
	for _, c := range constants {
		if sql := constant.StringVal(c.Val()); begins.MatchString(sql) {
			all = append(all, statement{strings.Trim(folder, ".") + c.Name(), sql})
		}
	}
	return all
}

// isStatement reports whether a string literal is a whole statement on our tables.
func isStatement(literal string) bool {
	return begins.MatchString(strings.Trim(literal, "`\"")) && strings.Contains(literal, "syncer.")
}

// noImports is an importer that finds nothing.
type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) { return nil, os.ErrNotExist }
