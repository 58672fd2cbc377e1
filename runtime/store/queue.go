package store

import "sync"

// Queue runs transfers on a bounded number of workers, first come first
// served, so that the order in which a plan issues its reads is the order in
// which they start. Completion may be out of order.
type Queue struct {
	mu     sync.Mutex
	wake   *sync.Cond
	jobs   []func(worker int)
	head   int
	closed bool
	done   sync.WaitGroup
}

// NewQueue starts depth workers, at least one.
func NewQueue(depth int) *Queue {
	q := &Queue{}
	q.wake = sync.NewCond(&q.mu)
	for w := range max(depth, 1) {
		q.done.Add(1)
		go q.work(w)
	}
	return q
}

func (q *Queue) work(w int) {
	defer q.done.Done()
	for {
		q.mu.Lock()
		for q.head == len(q.jobs) && !q.closed {
			q.wake.Wait()
		}
		if q.head == len(q.jobs) {
			q.mu.Unlock()
			return
		}
		job := q.jobs[q.head]
		q.jobs[q.head] = nil
		if q.head++; q.head == len(q.jobs) {
			q.jobs, q.head = q.jobs[:0], 0
		}
		q.mu.Unlock()
		job(w)
	}
}

// Submit queues a job without waiting. The job is told which worker runs it.
func (q *Queue) Submit(job func(worker int)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		panic("BUG: job submitted to a closed queue")
	}
	q.jobs = append(q.jobs, job)
	q.wake.Signal()
}

// Close waits for the jobs that were submitted and stops the workers.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.wake.Broadcast()
	q.mu.Unlock()
	q.done.Wait()
}
