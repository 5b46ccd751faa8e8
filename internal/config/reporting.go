package config

import (
	"fmt"
	"reflect"
)

// Reporting is the part of the configuration that reports need. Settings for APIs and
// users tables may be missing or wrong, because readers of reports need not have the
// apps' secrets.
type Reporting struct {
	Database Database
	Log      Log
	Report   Report
	// Apps are the names of the configured apps, if they can be read.
	Apps []string
}

// Viewing is the part of the configuration that syncer web needs.
type Viewing struct {
	Reporting
	Web Web
	// Full is the whole configuration, nil if it is incomplete or wrong elsewhere. It
	// has the schedules and the call rates.
	Full *Config
}

// LoadViewing is Load for syncer web.
func LoadViewing(path string, environ []string) (*Viewing, error) {
	var web Web
	reporting, err := loadReporting(path, environ, &web)
	if err != nil {
		return nil, err
	}
	c := &Viewing{Reporting: *reporting, Web: web}
	if full, err := Load(path, environ); err == nil {
		c.Full = full
	}
	return c, nil
}

// LoadReporting is Load for commands that only read collected data.
func LoadReporting(path string, environ []string) (*Reporting, error) {
	return loadReporting(path, environ, nil)
}

// loadReporting is LoadReporting. If web is not nil, it also reads and checks [web].
func loadReporting(path string, environ []string, web *Web) (*Reporting, error) {
	data, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	b, root, err := newBinder(path, data, environ)
	if err != nil {
		return nil, err
	}
	c := &Reporting{}
	b.section(reflect.ValueOf(&c.Database).Elem(), root.get("database"), "database", envName(envPrefix, "database"))
	b.section(reflect.ValueOf(&c.Log).Elem(), root.get("log"), "log", envName(envPrefix, "log"))
	b.section(reflect.ValueOf(&c.Report).Elem(), root.get("report"), "report", envName(envPrefix, "report"))
	validator{binder: b, c: &Config{Database: c.Database}}.schema()
	if web != nil {
		b.section(reflect.ValueOf(web).Elem(), root.get("web"), "web", envName(envPrefix, "web"))
		validator{binder: b, c: &Config{Web: *web}}.web()
	}
	if len(b.problems) > 0 {
		b.problems.sort()
		return nil, b.problems
	}
	if apps := root.get("apps"); apps != nil {
		for _, app := range apps.items {
			if name := app.get("name"); name != nil {
				c.Apps = append(c.Apps, name.text)
			}
		}
	}
	return c, nil
}
