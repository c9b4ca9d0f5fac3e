"""The mailbox: the newest item replaces others, or all wait in order, and dropped items are counted."""

import threading
import time

from loftr_ros.ros.mailbox import Mailbox


def test_with_one_slot_the_newest_item_wins_and_the_older_ones_are_counted():
    box = Mailbox()
    assert [box.put(i) for i in range(3)] == [0, 1, 1]
    assert box.get() == 2


def test_with_room_items_come_in_order():
    box = Mailbox()
    assert sum(box.put(i, capacity=10) for i in range(5)) == 0
    assert [box.get() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_full_backlog_drops_the_oldest():
    box = Mailbox()
    assert [box.put(i, capacity=2) for i in range(4)] == [0, 0, 1, 1]
    assert [box.get(), box.get()] == [2, 3]


def test_going_back_to_one_slot_drops_the_whole_backlog():
    box = Mailbox()
    for i in range(5):
        box.put(i, capacity=10)
    assert box.put(5, capacity=1) == 5
    assert box.get() == 5


def test_get_waits_for_an_item_and_close_ends_the_wait():
    box, seen = Mailbox(), []

    def work():
        while (item := box.get()) is not None:
            seen.append(item)

    worker = threading.Thread(target=work)
    worker.start()
    box.put('a')
    deadline = time.monotonic() + 5
    while not seen and time.monotonic() < deadline:
        time.sleep(0.001)
    box.close()
    worker.join(5)
    assert seen == ['a'] and not worker.is_alive()


def test_a_closed_mailbox_takes_nothing_and_says_so():
    box = Mailbox()
    box.close()
    assert box.put(1, capacity=3) == 1
    assert box.get() is None


def test_clear_says_how_many_it_dropped():
    box = Mailbox()
    box.put(1, capacity=3)
    box.put(2, capacity=3)
    assert box.clear() == 2 and len(box) == 0


def test_functions_come_before_items_and_are_not_dropped_with_them():
    box, called = Mailbox(), []
    box.put(1)
    box.call(lambda: called.append('a'))
    box.call(lambda: called.append('b'))
    assert box.put(2) == 1 and box.clear() == 1
    box.put(3)
    for _ in range(2):
        box.get()()
    assert called == ['a', 'b'] and box.get() == 3


def test_a_function_wakes_a_worker_that_waits_and_none_is_left_after_close():
    box, called = Mailbox(), threading.Event()
    waiting = threading.Thread(target=lambda: box.get()(), daemon=True)
    waiting.start()
    box.call(called.set)
    assert called.wait(5)
    box.call(called.clear)
    box.close()
    assert box.get() is None
