use super::*;

/// Runs a program as the kernel would, on one call.
fn run(program: &Program, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        NUMBER => number,
        ARCH => arch,
        _ => {
            let word = (offset - 16) / 4;
            (args[word as usize / 2] >> (32 * (word % 2))) as u32
        }
    };
    let (mut at, mut acc) = (0usize, 0u32);
    loop {
        let op = program.0[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { op.jt } else { op.jf });
        match op.code {
            LOAD => acc = load(op.k),
            AND => acc &= op.k,
            EQUAL => at += jump(acc == op.k),
            AT_LEAST => at += jump(acc >= op.k),
            ANY_BIT => at += jump(acc & op.k != 0),
            JUMP => at += op.k as usize,
            RETURN => return op.k,
            code => panic!("unknown instruction {code}"),
        }
    }
}

fn errno(number: u16) -> u32 {
    ret(Action::Errno(number)).k
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

#[test]
fn every_number_gets_its_own_verdict() {
    let verdicts: BTreeMap<u32, Verdict> =
        (0..400).map(|n| (n * 2, Verdict::always(Action::Errno(n as u16 + 1)))).collect();
    let program = Program::compile(&verdicts, Action::Errno(1000));
    for n in 0..400 {
        assert_eq!(run(&program, NATIVE, n * 2, [0; 6]), errno(n as u16 + 1));
        assert_eq!(run(&program, NATIVE, n * 2 + 1, [0; 6]), errno(1000));
    }
    assert_eq!(run(&program, NATIVE, u32::MAX, [0; 6]), errno(1000));
}

#[test]
fn foreign_architectures_end_the_process() {
    let program = Program::compile(&BTreeMap::new(), Action::Allow);
    const I386: u32 = 0x4000_0003;
    assert_eq!(run(&program, I386, 1, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn x32_numbers_are_unknown() {
    let verdicts = TABLE.iter().map(|(_, n)| (*n, Verdict::always(Action::Allow))).collect();
    let program = Program::compile(&verdicts, Action::Errno(38));
    assert_eq!(run(&program, NATIVE, 1, [0; 6]), ALLOW);
    assert_eq!(run(&program, NATIVE, 0x4000_0001, [0; 6]), errno(38));
}

#[test]
fn arguments_are_read_as_the_kernel_reads_them() {
    let case = |when: Vec<(u8, Test)>| Case { when, action: Action::Errno(1) };
    let cases = vec![
        case(vec![(1, Test::Equals(0x5412))]),
        case(vec![(0, Test::AnyBit(0x1000_0000))]),
        case(vec![(2, Test::Equals(4)), (3, Test::Given)]),
        case(vec![(4, Test::Masked { mask: 0xff00, value: 0x9400 })]),
    ];
    let verdicts = [(7, Verdict { cases, otherwise: Action::Allow })].into();
    let program = Program::compile(&verdicts, Action::Kill);
    let check = |args, expected| assert_eq!(run(&program, NATIVE, 7, args), expected, "{args:x?}");
    check([0; 6], ALLOW);
    check([0, 0x5412, 0, 0, 0, 0], errno(1));
    // The kernel drops the upper half of an int: hiding TIOCSTI behind it must not work.
    check([0, 0xdead_0000_5412, 0, 0, 0, 0], errno(1));
    check([0x1000_0011, 0, 0, 0, 0, 0], errno(1));
    check([0, 0, 4, 0, 0, 0], ALLOW);
    check([0, 0, 4, 1, 0, 0], errno(1));
    check([0, 0, 4, 1 << 40, 0, 0], errno(1));
    check([0, 0, 3, 1, 0, 0], ALLOW);
    check([0, 0, 0, 0, 0x5000_940e, 0], errno(1));
    check([0, 0, 0, 0, 0x5000_950e, 0], ALLOW);
}

#[test]
fn the_table_has_each_number_once() {
    assert!(TABLE.windows(2).all(|pair| pair[0].1 < pair[1].1));
    assert_eq!(number("setns"), Some(libc::SYS_setns as u32));
    assert_eq!(number("open_tree_attr"), Some(467));
    assert_eq!(number("no such call"), None);
}
