package repo_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// setKeyPattern is an assignment to a column of the key by which users are cut up.
var setKeyPattern = regexp.MustCompile(`(?:\bSET|,)\s*(user_id|app_id) = `)

// setsKey returns such a column that a statement sets, "" if it sets none.
func setsKey(sql string) string {
	if m := setKeyPattern.FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	return ""
}

// planNode is a node of a plan as EXPLAIN shows it.
type planNode struct {
	Type         string   `json:"Node Type"`
	Relation     string   `json:"Relation Name"`
	Alias        string   `json:"Alias"`
	CTE          string   `json:"CTE Name"`
	Subplan      string   `json:"Subplan Name"`
	Relationship string   `json:"Parent Relationship"`
	GroupKey     []string `json:"Group Key"`
	IndexCond    string   `json:"Index Cond"`
	RecheckCond  string   `json:"Recheck Cond"`
	Filter       string   `json:"Filter"`
	JoinType     string   `json:"Join Type"`
	JoinFilter   string   `json:"Join Filter"`
	HashCond     string   `json:"Hash Cond"`
	MergeCond    string   `json:"Merge Cond"`
	Plans        []planNode
}

func planOf(t *testing.T, explained string) planNode {
	t.Helper()
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal([]byte(explained), &plans); err != nil {
		t.Fatalf("%v\n%s", err, explained)
	}
	return plans[0].Plan
}

// reading is what a plan does with rows of users. Their rows go by the alias of
// the table, subquery or CTE that they come from.
type reading struct {
	userTables map[string]bool
	tables     map[string]string   // by alias: the tables of users that are read
	ctes       map[string][]string // aliases of the rows of users of each CTE
	class      map[string]string   // aliases whose user_id is the same; see same
	derived    map[string]bool     // aliases of subqueries and CTEs with rows of users
	app        map[string]bool     // aliases whose app is given
	joins      [][2][]string
	pending    [][2]string // equal user_ids, by alias
	unlike     [][2]string // the same of rows that must not be there
	inserts    bool
	sets       [][]string // aliases of one set of rows: a UNION, a subquery
}

func newReading(userTables map[string]bool) *reading {
	return &reading{userTables: userTables, tables: map[string]string{}, ctes: map[string][]string{}, class: map[string]string{}, derived: map[string]bool{}, app: map[string]bool{}}
}

// read reads a node with all below it, and returns the aliases of its users' rows.
func (r *reading) read(n planNode) []string {
	r.conditions(n)
	var inputs, asked [][]string
	for _, child := range n.Plans {
		rows := r.read(child)
		switch {
		case strings.HasPrefix(child.Subplan, "CTE "):
			r.ctes[strings.TrimPrefix(child.Subplan, "CTE ")] = rows
		case child.Relationship == "InitPlan" || len(rows) == 0:
			// A value that is the same for all rows; no rows of users.
		case child.Relationship == "SubPlan":
			asked = append(asked, rows)
		default:
			inputs = append(inputs, rows)
		}
	}
	if own := r.own(n, len(inputs) > 0); own != "" {
		inputs = append(inputs, []string{own})
	}
	rows := slices.Concat(inputs...)
	switch {
	case strings.Contains(n.Type, "Append"), n.Type == "SetOp", n.Type == "Subquery Scan", n.Type == "CTE Scan":
		r.sets = append(r.sets, append(rows, r.ctes[n.CTE]...))
	case len(inputs) > 1:
		r.joins = append(r.joins, [2][]string{inputs[0], inputs[1]})
	}
	for _, subquery := range asked { // for each row
		if len(rows) > 0 {
			r.joins = append(r.joins, [2][]string{rows, subquery})
		}
	}
	if n.Type == "Aggregate" && !slices.ContainsFunc(n.GroupKey, func(key string) bool { return strings.HasSuffix(key, "user_id") }) {
		return nil // sums, and no rows of users any more
	}
	return rows
}

// own returns the alias of the rows of users that a node reads itself.
func (r *reading) own(n planNode, reads bool) string {
	table := strings.TrimSuffix(n.Relation, "_default")
	switch {
	case n.Type == "ModifyTable":
		r.inserts = r.inserts || r.userTables[table]
		return "" // it has read the rows before, or inserts them
	case n.Type == "CTE Scan" && len(r.ctes[n.CTE]) > 0, n.Type == "Subquery Scan" && reads:
		r.derived[n.Alias] = true
		return n.Alias
	case r.userTables[table]:
		r.tables[n.Alias] = table
		return n.Alias
	}
	return ""
}

// An alias is a name, which may be quoted.
const aliasPattern = `("[^"]+"|\w+)`

var (
	sameUserPattern  = regexp.MustCompile(aliasPattern + `\.user_id = ` + aliasPattern + `\.user_id\b`)
	givenUserPattern = regexp.MustCompile(aliasPattern + `\.user_id = (ANY|\$|'|l\.|n\.|c\.)`)
	appPattern       = regexp.MustCompile(aliasPattern + `\.app_id(?: = |$)`) // the left side, or what is grouped by
	appRightPattern  = regexp.MustCompile(`= ` + aliasPattern + `\.app_id\b`)
	casts            = strings.NewReplacer("::text", "", "(", "", ")", "", ` COLLATE "C"`, "", ` COLLATE "default"`, "")
)

// conditions takes note of the equalities of a node.
func (r *reading) conditions(n planNode) {
	for _, condition := range append([]string{n.IndexCond, n.RecheckCond, n.Filter, n.JoinFilter, n.HashCond, n.MergeCond}, n.GroupKey...) {
		condition = casts.Replace(condition)
		for _, m := range sameUserPattern.FindAllStringSubmatch(condition, -1) {
			if n.JoinType == "Anti" {
				r.unlike = append(r.unlike, [2]string{m[1], m[2]})
			} else {
				r.pending = append(r.pending, [2]string{m[1], m[2]})
			}
		}
		for _, m := range givenUserPattern.FindAllStringSubmatch(condition, -1) {
			r.pending = append(r.pending, [2]string{m[1], "given"})
		}
		for _, pattern := range []*regexp.Regexp{appPattern, appRightPattern} {
			for _, m := range pattern.FindAllStringSubmatch(condition, -1) {
				r.app[strings.Trim(m[1], `"`)] = true
			}
		}
	}
}

// same returns the name of the class of an alias.
func (r *reading) same(alias string) string {
	alias = strings.Trim(alias, `"`)
	for r.class[alias] != "" && r.class[alias] != alias {
		alias = r.class[alias]
	}
	return alias
}

func (r *reading) unite(a, b string) { r.class[r.same(a)] = r.same(b) }

// broken says which rules the plan breaks.
func (r *reading) broken() []string {
	for _, equal := range r.pending {
		r.unite(equal[0], equal[1])
	}
	for _, equal := range r.unlike {
		// A condition that excludes a list of users returns none of them.
		if r.tables[equal[0]] != "" && r.tables[equal[1]] != "" {
			r.unite(equal[0], equal[1])
		}
	}
	for _, set := range r.sets {
		for _, alias := range set {
			r.unite(alias, set[0])
		}
		// What is asked of a set is asked of all its rows.
		if slices.ContainsFunc(set, func(alias string) bool { return r.app[alias] }) {
			for _, alias := range set {
				r.app[alias] = true
			}
		}
	}
	var broken []string
	for alias, table := range r.tables {
		if !r.app[alias] {
			broken = append(broken, fmt.Sprintf("rows of %s (%s) are read of any app", table, alias))
		}
	}
	for _, join := range r.joins {
		if !slices.ContainsFunc(join[0], func(left string) bool {
			return slices.ContainsFunc(join[1], func(right string) bool { return r.same(left) == r.same(right) })
		}) {
			broken = append(broken, fmt.Sprintf("rows of users are joined, %s with %s, but not by user_id", join[0], join[1]))
		}
	}
	slices.Sort(broken)
	return broken
}

// kind says which shards have to do with a statement. Call it after broken.
func (r *reading) kind() string {
	given := map[string]bool{}
	for _, equal := range r.pending {
		for _, alias := range equal {
			if alias = strings.Trim(alias, `"`); r.tables[alias] == "" && !r.derived[alias] {
				given[r.same(alias)] = true
			}
		}
	}
	for alias := range r.tables {
		if !given[r.same(alias)] {
			return "read every shard, each for itself"
		}
	}
	if len(r.tables) == 0 && !r.inserts {
		return "touch no row of a user, or leave it to a function"
	}
	return "go to the shards of the users that they are given"
}
