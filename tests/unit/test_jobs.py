"""Jobs: progress, cancelling, errors and resuming, in a thread of their own and right here."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from workbench.errors import JobCancelled, RecipeError, WorkbenchError
from workbench.jobs import Job, Queue, Status, Turns


@dataclass(frozen=True)
class Count:
    done: int
    total: int

    @property
    def fraction(self) -> float:
        return self.done / self.total


def counting(total: int) -> Generator[Count, None, str]:
    for done in range(1, total + 1):
        yield Count(done, total)
    return f"counted to {total}"


class Gate:
    """Counts up, but takes each step only when the test lets it; remembers what was finished and whether it was closed."""

    def __init__(self, total: int = 4) -> None:
        self.total, self.finished, self.closed = total, 0, False
        self.allowed, self.taken = threading.Semaphore(0), threading.Semaphore(0)

    def steps(self) -> Generator[Count, None, int]:
        try:
            while self.finished < self.total:
                self.allowed.acquire()
                self.finished += 1
                yield Count(self.finished, self.total)
        finally:
            self.closed = True
        return self.finished

    def follow(self, job: Job) -> None:
        if job.status is Status.RUNNING and job.latest is not None:
            self.taken.release()

    def step(self) -> None:
        self.allowed.release()
        assert self.taken.acquire(timeout=10), "the job took no step"


@pytest.mark.parametrize("way", ["start", "run_here"])
def test_a_job_ends_with_its_result(way: str) -> None:
    job = Job(lambda: counting(3))
    assert (job.status, job.progress, job.seconds) == (Status.WAITING, 0.0, 0.0)
    assert getattr(job, way)() is job
    assert job.result(10) == "counted to 3"
    assert (job.status, job.progress, job.latest) == (Status.DONE, 1.0, Count(3, 3))
    assert job.seconds > 0
    assert job.seconds_left == 0


def test_progress_follows_the_steps() -> None:
    seen: list[tuple[Status, float]] = []
    job = Job(lambda: counting(4))
    job.on_change(lambda job: seen.append((job.status, job.progress)))
    job.run_here()
    running = [(Status.RUNNING, part) for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert seen == [*running, (Status.DONE, 1.0)]


def test_steps_without_numbers_leave_progress_alone() -> None:
    def steps() -> Generator[str, None, None]:
        yield "thinking"

    seen = []
    job = Job(steps)
    job.on_change(lambda job: seen.append(job.progress))
    assert job.run_here().result() is None
    assert seen == [0.0, 0.0, 1.0]
    assert job.latest == "thinking"


def test_time_left_is_measured_at_the_speed_so_far() -> None:
    gate = Gate(4)
    job = Job(gate.steps)
    job.on_change(gate.follow)
    assert job.start().seconds_left is None
    gate.step()
    left = job.seconds_left
    assert left == pytest.approx(3 * job.seconds, rel=0.5)
    job.cancel()
    gate.allowed.release()
    assert job.wait(10)


def test_cancel_keeps_the_latest_step_and_closes_the_generator() -> None:
    gate = Gate()
    steps = gate.steps()  # held here, so that only the job can have closed it
    job = Job(lambda: steps, "squeeze")
    job.on_change(gate.follow)
    job.start()
    gate.step()
    job.cancel()
    gate.allowed.release()  # the step at hand ends, the one after is never begun
    assert job.wait(10)
    assert job.status is Status.CANCELLED
    assert gate.closed
    assert gate.finished <= 2
    assert job.latest.done == gate.finished
    with pytest.raises(JobCancelled, match="squeeze was cancelled at"):
        job.result()


def test_resume_goes_on_where_the_callable_remembers() -> None:
    gate = Gate()
    job = Job(gate.steps)
    job.on_change(gate.follow)
    job.start()
    gate.step()
    job.cancel()
    gate.allowed.release()
    assert job.wait(10)
    for _ in range(gate.total):
        gate.allowed.release()
    assert job.resume().result(10) == 4
    assert job.status is Status.DONE


@pytest.mark.parametrize("error", [RecipeError("group size 7 does not divide 16 columns"), ZeroDivisionError("a bug")], ids=str)
def test_errors_are_kept_and_raised_by_result(error: Exception) -> None:
    def steps() -> Generator[Count, None, None]:
        yield Count(1, 2)
        raise error

    job = Job(steps).start()
    assert job.wait(10)
    assert (job.status, job.error, job.progress) == (Status.FAILED, error, 0.5)
    with pytest.raises(type(error), match=str(error)):
        job.result()


def test_a_failed_job_can_be_resumed() -> None:
    fails = [True]

    def steps() -> Generator[Count, None, str]:
        yield Count(1, 2)
        if fails.pop():
            fails.append(False)
            raise RecipeError("not yet")
        return "now"

    job = Job(steps).run_here()
    assert job.status is Status.FAILED
    assert job.resume().result(10) == "now"
    assert job.error is None


def test_an_error_before_the_first_step_is_kept_too() -> None:
    def steps() -> Generator[Count, None, None]:
        raise RecipeError("no such preset")

    assert str(Job(steps).run_here().error) == "no such preset"


def test_an_interrupt_cancels_a_job_that_runs_here() -> None:
    def steps() -> Generator[Count, None, None]:
        yield Count(1, 2)
        raise KeyboardInterrupt("stop")

    job = Job(steps)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        job.run_here()
    assert job.status is Status.CANCELLED


def test_a_failing_viewer_is_logged_and_does_not_end_the_job(caplog: pytest.LogCaptureFixture) -> None:
    def broken(job: Job) -> None:
        raise ValueError("no such widget")

    job = Job(lambda: counting(2), "watched")
    stop = job.on_change(broken)
    with caplog.at_level(logging.ERROR):
        assert job.run_here().result() == "counted to 2"
    assert "a callback of watched failed" in caplog.text
    assert "no such widget" in caplog.text
    stop()


def test_a_callback_can_be_taken_back() -> None:
    seen = []
    job = Job(lambda: counting(2))
    job.on_change(seen.append)()
    job.run_here()
    assert seen == []


def test_misuse_is_answered_with_a_sentence() -> None:
    job = Job(lambda: counting(1), "demo")
    with pytest.raises(WorkbenchError, match="demo has not been started; call start"):
        job.result()
    with pytest.raises(WorkbenchError, match="demo is waiting; only a cancelled or failed job can be resumed"):
        job.resume()
    job.run_here()
    with pytest.raises(WorkbenchError, match="demo is done; a job starts only once"):
        job.start()
    job.cancel()
    assert job.status is Status.DONE


def test_result_waits_no_longer_than_asked() -> None:
    gate = Gate()
    job = Job(gate.steps, "slow").start()
    with pytest.raises(WorkbenchError, match=r"slow is still running after 0\.01 s, 0% done"):
        job.result(0.01)
    job.cancel()
    gate.allowed.release()
    assert job.wait(10)


def waited(queue: Queue, *jobs: Job) -> None:
    for job in jobs:
        assert job.wait(10), f"{job.name} has not ended"


def test_a_queue_serves_owners_in_turn() -> None:
    queue, gate, order = Queue(workers=1), Gate(1), []

    def named(name: str) -> Job:
        def steps() -> Generator[None, None, None]:
            order.append(name)
            yield None

        return Job(steps, name)

    first = Job(gate.steps, "first")
    queue.add(first, owner="a")
    greedy = [named(f"a{number}") for number in range(3)]
    for job in greedy:
        queue.add(job, owner="a")
    modest = named("b0")
    queue.add(modest, owner="b")
    assert queue.before(greedy[0]) >= 1
    gate.allowed.release()
    waited(queue, first, *greedy, modest)
    assert order == ["b0", "a0", "a1", "a2"], "b has not been served yet"
    assert queue.before(modest) == 0


def test_two_workers_serve_two_owners_at_once() -> None:
    queue, gates = Queue(workers=2), [Gate(1), Gate(1)]
    jobs = [Job(gate.steps, name) for gate, name in zip(gates, "ab", strict=True)]
    for job in jobs:
        queue.add(job, owner=job.name)
    for job, gate in zip(reversed(jobs), reversed(gates), strict=True):
        gate.allowed.release()
        assert job.wait(10), "it did not wait for the other one"


def test_a_job_can_be_cancelled_while_it_waits_or_works() -> None:
    queue, gate = Queue(workers=1), Gate(4)
    running, waiting, other = Job(gate.steps, "running"), Job(lambda: counting(3), "waiting"), Job(lambda: counting(2), "other")
    running.on_change(gate.follow)
    for job in (running, waiting, other):
        queue.add(job, owner="a")
    gate.step()
    queue.cancel(waiting)
    assert waiting.status is Status.CANCELLED
    queue.cancel(running)
    gate.allowed.release()
    waited(queue, running, other)
    assert (running.status, other.status) == (Status.CANCELLED, Status.DONE)
    queue.add(waiting.renew(), owner="a")
    assert waiting.wait(10)
    assert waiting.result() == "counted to 3"


def test_who_leaves_takes_their_jobs_along() -> None:
    queue, gate = Queue(workers=1), Gate(4)
    running, waiting, other = Job(gate.steps, "running"), Job(lambda: counting(3), "waiting"), Job(lambda: counting(2), "other")
    running.on_change(gate.follow)
    for job, owner in ((running, "a"), (waiting, "a"), (other, "b")):
        queue.add(job, owner=owner)
    gate.step()
    queue.drop("a")
    gate.allowed.release()
    waited(queue, running, waiting, other)
    assert [job.status for job in (running, waiting, other)] == [Status.CANCELLED, Status.CANCELLED, Status.DONE]


def test_no_more_steps_run_at_once_than_there_are_slots() -> None:
    turns, lock, at_work, most = Turns(2), threading.Lock(), 0, 0

    def step(owner: int) -> None:
        nonlocal at_work, most
        with turns.take(owner):
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.005)
            with lock:
                at_work -= 1

    threads = [threading.Thread(target=step, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_one_owner_with_many_steps_does_not_keep_another_waiting() -> None:
    turns, order = Turns(1, patience=60), []
    begun = threading.Event()

    def take(owner: str) -> None:
        with turns.take(owner):
            begun.set()
            order.append(owner)
            time.sleep(0.02)

    many = [threading.Thread(target=take, args=("many",)) for _ in range(8)]
    for thread in many:
        thread.start()
    begun.wait()
    one = threading.Thread(target=take, args=("one",))
    one.start()
    for thread in [*many, one]:
        thread.join()
    assert order.index("one") <= 3  # behind whatever had begun as it came, before the rest


def test_a_step_that_waits_for_a_lock_does_not_stop_the_one_that_holds_it() -> None:
    turns, lock, done = Turns(1, patience=0.05), threading.Lock(), []
    lock.acquire()

    def waits_for_the_lock() -> None:
        with turns.take("first"), lock:
            done.append("first")

    def holds_the_lock() -> None:
        with turns.take("second"):
            lock.release()
            done.append("second")

    first = threading.Thread(target=waits_for_the_lock)
    first.start()
    time.sleep(0.02)
    second = threading.Thread(target=holds_the_lock)
    second.start()
    first.join(10)
    second.join(10)
    assert sorted(done) == ["first", "second"]


def test_the_interpreter_ends_cleanly_while_a_job_is_at_work() -> None:
    """A thread that is inside torch when the interpreter ends would abort the process."""
    code = """
import time
import torch
from workbench.jobs import Job, Queue

def steps():
    while True:
        torch.linalg.qr(torch.randn(400, 400))
        yield 1

Job(steps).start()
queue = Queue(1)
for _ in range(3):
    queue.add(Job(steps), owner=1)
time.sleep(0.5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
