-- One set of words for answers that are not believed at once: a page is suspect, is
-- rechecked, and its answers are confirmed or rejected. OpenIM users whom its two
-- APIs contradict each other about are failures of their own.

-- +goose Up

ALTER TABLE sync_run RENAME COLUMN suspected TO suspect_pages;
ALTER TABLE sync_run RENAME COLUMN disbelieved TO rejected_answers;
ALTER TABLE sync_range RENAME COLUMN suspicion TO suspect_answers;
ALTER TABLE sync_range RENAME COLUMN ask_after TO recheck_after;
ALTER TABLE sync_range RENAME COLUMN suspected TO suspect_pages;
ALTER TABLE sync_range RENAME COLUMN disbelieved TO rejected_answers;

COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table and rejected no answers: status succeeded or partial, not limited to a list, rejected_answers 0.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed or their answers were rejected; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.plan_ranges IS 'How many ranges there are: those cut from the users table, and the suspect pages, each a range of its own.';
COMMENT ON COLUMN sync_run.suspect IS 'Some of its pages are suspect right now (too many users offline at once) and wait for their recheck.';
COMMENT ON COLUMN sync_run.suspect_pages IS 'Pages that were suspect and were rechecked.';
COMMENT ON COLUMN sync_run.rejected_answers IS 'Users whose pages stayed suspect and were not written: they keep their last known value.';
COMMENT ON COLUMN sync_range.suspect_answers IS 'How many answers in a row about its page have been suspect; 0: an ordinary range. A suspect page becomes a range of its own, its recheck.';
COMMENT ON COLUMN sync_range.recheck_after IS 'A recheck does not begin before this time.';
COMMENT ON COLUMN sync_range.suspect_pages IS 'Pages of it that were suspect so far.';
COMMENT ON COLUMN sync_range.rejected_answers IS 'Users whose page stayed suspect and was not written.';

COMMENT ON TABLE user_failure IS 'Users without a new value: rejected one by one by the API, or by the check before sending, or contradicted. The row goes when the user succeeds.';
COMMENT ON COLUMN user_failure.code IS 'The provider''s code, or invalid_id, null_id, missing, …; contradicted: OpenIM''s get_users_online_status calls the user offline and get_users_status does not.';
COMMENT ON COLUMN user_failure.first_at IS 'When it failed first with this code; known_at says since when nothing is sure.';
COMMENT ON COLUMN user_failure.times IS 'How often it was recorded with this code.';
COMMENT ON COLUMN presence_current.stale IS 'Nothing is sure since last_checked_at: the API rejects the user, two APIs contradict each other about the user, or no run has looked at the app for longer than max_gap.';
COMMENT ON COLUMN presence_count.users IS 'How many. A user about whom two APIs contradict each other counts with the last known value.';

-- +goose Down

COMMENT ON COLUMN presence_count.users IS 'How many.';
COMMENT ON COLUMN presence_current.stale IS 'Nothing is known since last_checked_at: the API rejects the user, or no run has looked at the app for longer than max_gap.';
COMMENT ON COLUMN user_failure.times IS 'How often it was recorded.';
COMMENT ON COLUMN user_failure.first_at IS 'When it failed first.';
COMMENT ON COLUMN user_failure.code IS 'The provider''s code, or invalid_id, null_id, missing.';
COMMENT ON TABLE user_failure IS 'Users whom the API, or the check before sending, rejects one by one. The row goes when the user succeeds.';

ALTER TABLE sync_range RENAME COLUMN rejected_answers TO disbelieved;
ALTER TABLE sync_range RENAME COLUMN suspect_pages TO suspected;
ALTER TABLE sync_range RENAME COLUMN recheck_after TO ask_after;
ALTER TABLE sync_range RENAME COLUMN suspect_answers TO suspicion;
ALTER TABLE sync_run RENAME COLUMN rejected_answers TO disbelieved;
ALTER TABLE sync_run RENAME COLUMN suspect_pages TO suspected;

COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table and believed all answers: status succeeded or partial, not limited to a list, none disbelieved.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed or were not believed; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.plan_ranges IS 'How many ranges there are: those cut from the users table, and the pages in doubt, each a range of its own.';
COMMENT ON COLUMN sync_run.suspect IS 'Some of its answers are in doubt right now (too many users offline at once) and are being asked again.';
COMMENT ON COLUMN sync_run.suspected IS 'Pages whose answers were in doubt and were asked again.';
COMMENT ON COLUMN sync_run.disbelieved IS 'Users whose answers stayed in doubt and were not written: they keep their last known value.';
COMMENT ON COLUMN sync_range.suspicion IS 'How many answers in a row about its users have been in doubt; 0: an ordinary range. A page in doubt becomes a range of its own.';
COMMENT ON COLUMN sync_range.ask_after IS 'A range in doubt is not asked again before this time.';
COMMENT ON COLUMN sync_range.suspected IS 'Pages of it that were put in doubt so far.';
COMMENT ON COLUMN sync_range.disbelieved IS 'Users whose answers stayed in doubt.';
