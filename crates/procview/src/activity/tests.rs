use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn used(user_seconds: u64, system_seconds: u64) -> Usage {
    Usage { user: user_seconds * 1_000_000, system: system_seconds * 1_000_000 }
}

fn text(render: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    render(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn time_is_spread_over_the_processors_and_the_rest_is_idle() {
    let mut activity = Activity::default();
    activity.advance(seconds(100), used(30, 10), 2);
    let expected = "cpu  3000 0 1000 16000 0 0 0 0 0 0\n\
        cpu0 1500 0 500 8000 0 0 0 0 0 0\n\
        cpu1 1500 0 500 8000 0 0 0 0 0 0\n\
        intr 0\nctxt 0\nbtime 1700000000\nprocesses 0\nprocs_running 1\nprocs_blocked 0\n\
        softirq 0 0 0 0 0 0 0 0 0 0 0\n";
    assert_eq!(text(|out| activity.render_stat(1_700_000_000, out)), expected);
    assert_eq!(text(|out| activity.render_uptime(out)), "100.00 160.00\n");
}

#[test]
fn uptime_has_two_decimals_cut_and_not_rounded() {
    let mut activity = Activity::default();
    activity.advance(Duration::from_millis(61_059), Usage::default(), 1);
    assert_eq!(text(|out| activity.render_uptime(out)), "61.05 61.05\n");
}

#[test]
fn counters_never_run_backwards_when_limits_change_or_use_does() {
    let mut activity = Activity::default();
    let mut before = [Share::default(); 5];
    for (at, user, processors) in [(10, 5, 4), (20, 25, 1), (30, 20, 2), (30, 90, 4), (31, 90, 4), (40, 91, 1)] {
        activity.advance(seconds(at), used(user, 0), processors);
        let now: Vec<Share> = std::iter::once(&activity.total).chain(&activity.each).copied().collect();
        for (before, now) in before.iter().zip(&now) {
            assert!(before.user <= now.user && before.idle <= now.idle, "{before:?} {now:?} at {at}");
        }
        before[..now.len()].copy_from_slice(&now);
        let shown = text(|out| activity.render_stat(0, out)).lines().filter(|line| line.starts_with("cpu")).count();
        assert_eq!(shown, 1 + processors);
    }
    assert_eq!(activity.total.user, 91_000_000);
}

#[test]
fn a_busy_processor_is_a_load_of_one_in_the_end() {
    let mut activity = Activity::default();
    activity.advance(seconds(60), used(60, 0), 2);
    let [one, five, fifteen] = activity.loads();
    assert!((one - 0.632).abs() < 0.001 && (five - 0.181).abs() < 0.001 && (fifteen - 0.064).abs() < 0.001);
    activity.advance(seconds(7200), used(7200, 0), 2);
    assert_eq!(text(|out| activity.render_loadavg(7, out)), "1.00 1.00 1.00 1/7 0\n");
}

#[test]
fn how_often_the_load_is_read_does_not_change_it() {
    let (mut often, mut once) = (Activity::default(), Activity::default());
    for at in 1..=100 {
        often.advance(seconds(at), used(at, 0), 2);
    }
    once.advance(seconds(100), used(100, 0), 2);
    for (often, once) in often.loads().iter().zip(once.loads()) {
        assert!((often - once).abs() < 1e-9, "{often} {once}");
    }
}
