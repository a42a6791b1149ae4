//! How fast a guest may send, receive, read and write.

use crate::yard::eventually;
use crate::{create_with, pace, project};

/// Reads past the guest's memory of it; in seconds.
const READ: &str = "
import os, mmap, time
fd = os.open('/root/big', os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 2**20)
begun = time.time()
while os.readv(fd, [page]): pass
print(time.time() - begun)";

#[test]
fn a_guest_is_held_to_its_rates_from_the_start_and_to_others_at_once() {
    let test = "a_guest_is_held_to_its_rates_from_the_start_and_to_others_at_once";
    let Some(yard) = project(test, "unused") else { return };
    create_with(&yard, "n", "internet");
    yard.ok(&["set", "n", "--network-rate", pace::RATE, "--disk-rate", "1MiB"]);
    yard.ok(&["start", "n"]);
    let read = || yard.ok(&["exec", "n", "--", "python3", "-c", READ]).parse::<f64>().expect("seconds");
    yard.sh("n", "head -c 4M /dev/urandom > /root/big; sync");
    let held = read();
    assert!(held > 2.5, "4 MiB in {held} s");
    pace::serve(&yard, "n");
    let sent = pace::measure(&yard, "n");
    assert!(sent.iter().all(|took| *took > pace::SLOW), "{sent:?}");
    // One that goes on from its memory is held to what is asked for by then.
    yard.ok(&["pause", "n"]);
    yard.ok(&["set", "n", "--disk-rate", "2MiB"]);
    yard.ok(&["resume", "n"]);
    let resumed = read();
    assert!(resumed > 1.2, "4 MiB in {resumed} s");
    // A busy machine may be slow now and then, and not for ever.
    eventually("it reads faster than before", || read() < held);
    let sent = pace::measure(&yard, "n");
    assert!(sent.iter().all(|took| *took > pace::SLOW), "{sent:?}");
    let changed = yard.ok(&["set", "n", "--disk-rate", "none", "--network-rate", "none"]);
    assert!(!changed.contains("next start"), "{changed}");
    eventually("it reads freely", || read() < 1.2);
}
