package jobs

import (
	"context"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"syncer/repo"
)

// queueDriver keeps the queue from heeding notifications that any role that may connect
// can send: a queue is paused, a job cancelled and leadership given up by what stands in
// the queue's tables, which its clients also look at by themselves, and by nothing else.
// Only new work is announced, on a channel whose name only workers know. The queue's
// clients send nothing: the engine does.
type queueDriver struct {
	*riverpgxv5.Driver
	store *repo.Store
}

// SupportsListenNotify keeps the queue's clients from sending notifications.
func (queueDriver) SupportsListenNotify() bool { return false }

// GetListener returns what the queue's client listens with.
func (d queueDriver) GetListener(params *riverdriver.GetListenenerParams) riverdriver.Listener {
	return &queueListener{Listener: d.Driver.GetListener(params), store: d.store}
}

// insertTopic is what the queue's clients call the announcements of new jobs.
const insertTopic = "river_insert"

// queueListener listens to announcements of new work alone.
type queueListener struct {
	riverdriver.Listener
	store   *repo.Store
	channel string // the name is looked up with each new connection: a dump may have been restored
}

// Listen listens if the topic is insertTopic.
func (l *queueListener) Listen(ctx context.Context, topic string) error {
	if topic != insertTopic {
		return nil
	}
	channel, err := l.store.QueueChannel(ctx)
	if err != nil {
		return err
	}
	l.channel = channel
	return l.Listener.Listen(ctx, channel)
}

// Unlisten ends what Listen began.
func (l *queueListener) Unlisten(ctx context.Context, topic string) error {
	if topic != insertTopic {
		return nil
	}
	return l.Listener.Unlisten(ctx, l.channel)
}

// WaitForNotification waits for an announcement.
func (l *queueListener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	n, err := l.Listener.WaitForNotification(ctx)
	if err != nil {
		return nil, err
	}
	return &riverdriver.Notification{Topic: insertTopic, Payload: n.Payload}, nil
}
