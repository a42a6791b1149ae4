//! /proc/cpuinfo: the host's own text, cut to the sandbox's processors and renumbered.

use std::io::Write;

/// How many processors a text describes. Blocks end with an empty line; others than processors (32-bit Arm's serial
/// number of the board, at the end) do not count.
pub(crate) fn count(text: &str) -> usize {
    blocks(text).count()
}

fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").filter(|block| block.starts_with("processor"))
}

/// The first `processors` blocks, as one socket with a core for each: x86's topology lines are made to agree with
/// that; Arm has none. If the host shows fewer, its last stands for the rest.
pub(crate) fn render(host: &str, processors: usize, out: &mut Vec<u8>) {
    let mut blocks = blocks(host);
    let mut block = "";
    for number in 0..processors {
        block = blocks.next().unwrap_or(block);
        for line in block.lines() {
            let value = match line.split(['\t', ':']).next().unwrap_or_default() {
                "processor" | "core id" | "apicid" | "initial apicid" => number,
                "siblings" | "cpu cores" => processors,
                "physical id" => 0,
                _ => {
                    out.extend_from_slice(line.as_bytes());
                    out.push(b'\n');
                    continue;
                }
            };
            let name = line.split_once(':').map_or(line, |(name, _)| name);
            let _ = writeln!(out, "{name}: {value}");
        }
        out.push(b'\n');
    }
}

/// /sys/devices/system/cpu/online and the like: a range.
pub(crate) fn render_range(processors: usize, out: &mut Vec<u8>) {
    let _ = match processors {
        0 | 1 => writeln!(out, "0"),
        more => writeln!(out, "0-{}", more - 1),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = "processor\t: 0\nmodel name\t: AMD EPYC\nphysical id\t: 0\nsiblings\t: 8\ncore id\t\t: 0\n\
        cpu cores\t: 4\napicid\t\t: 0\ninitial apicid\t: 0\nfpu\t\t: yes\npower management:\n\n\
        processor\t: 1\nmodel name\t: AMD EPYC\nphysical id\t: 1\nsiblings\t: 8\ncore id\t\t: 0\n\
        cpu cores\t: 4\napicid\t\t: 64\ninitial apicid\t: 64\nfpu\t\t: yes\npower management:\n\n\
        processor\t: 2\nmodel name\t: AMD EPYC\npower management:\n\n";

    const ARM: &str = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd03\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n\
        CPU part\t: 0xd09\n\nHardware\t: BCM2835\nSerial\t\t: 00000000deadbeef\n\n";

    fn rendered(host: &str, processors: usize) -> String {
        let mut out = Vec::new();
        render(host, processors, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_topology_is_one_socket_with_a_core_for_each_processor() {
        let block = |n: usize| {
            format!(
                "processor\t: {n}\nmodel name\t: AMD EPYC\nphysical id\t: 0\nsiblings\t: 2\ncore id\t\t: {n}\n\
                 cpu cores\t: 2\napicid\t\t: {n}\ninitial apicid\t: {n}\nfpu\t\t: yes\npower management:\n\n"
            )
        };
        assert_eq!(rendered(X86, 2), block(0) + &block(1));
        assert_eq!(count(X86), 3);
    }

    #[test]
    fn arm_has_no_topology_and_the_boards_serial_is_not_shown() {
        assert_eq!(rendered(ARM, 1), "processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd03\n\n");
        let all = rendered(ARM, 3);
        assert!(all.ends_with("processor\t: 2\nBogoMIPS\t: 50.00\nCPU part\t: 0xd09\n\n") && !all.contains("Serial"));
        assert_eq!(count(ARM), 2);
    }

    #[test]
    fn the_hosts_own_text_for_all_processors_keeps_its_form() {
        let host = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let keys = |text: &str| text.lines().map(|line| line.split(':').next().map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!(keys(&rendered(&host, count(&host))), keys(&host));
    }

    #[test]
    fn ranges_are_written_as_the_kernel_does() {
        for (processors, expected) in [(0, "0\n"), (1, "0\n"), (2, "0-1\n"), (64, "0-63\n")] {
            let mut out = Vec::new();
            render_range(processors, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
