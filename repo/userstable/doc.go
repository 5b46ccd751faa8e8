// Package userstable reads the customer's users table by keyset pagination, and never
// writes to it. It knows nothing of syncer's own tables, which package repo reads and
// writes; the two share package internal/pg, and repo returns pages of its lists of users
// as Page. Package jobs cuts a run into ranges with Walk.Cut and reads them with Walk.Page.
package userstable
