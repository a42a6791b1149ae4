use super::*;

/// A request as the kernel sends it.
pub(crate) fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::try_from(IN_HEADER + body.len()).unwrap().to_ne_bytes());
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    bytes.extend_from_slice(&77_u64.to_ne_bytes());
    bytes.extend_from_slice(&node.to_ne_bytes());
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(body);
    bytes
}

fn operation(bytes: &[u8]) -> Option<Operation<'_>> {
    Request::parse(bytes).map(|request| request.operation)
}

#[test]
fn requests_are_read_as_linux_lays_them_out() {
    let mut read = vec![0; 40];
    read[0] = 5;
    read[9] = 1;
    read[16..20].copy_from_slice(&4096_u32.to_ne_bytes());
    let bytes = request(15, 16, &read);
    let expected = Operation::Read { handle: 5, offset: 256, size: 4096 };
    assert_eq!(Request::parse(&bytes), Some(Request { unique: 77, node: 16, operation: expected }));
    assert_eq!(operation(&request(1, 1, b"meminfo\0")), Some(Operation::Lookup { name: b"meminfo" }));
    assert_eq!(
        operation(&request(26, 0, &[7, 0, 0, 0, 45, 0, 0, 0, 0])),
        Some(Operation::Init { major: 7, minor: 45 })
    );
    assert_eq!(operation(&request(2, 16, &[0; 8])), Some(Operation::Silent));
    assert_eq!(operation(&request(52, 16, &[0; 24])), Some(Operation::Unknown));
}

#[test]
fn what_is_cut_off_anywhere_is_refused() {
    for (opcode, body) in [(1, 1), (14, 4), (15, 20), (18, 8), (26, 8), (28, 20), (34, 4)] {
        let whole = request(opcode, 1, &vec![0; body]);
        assert_ne!(operation(&whole), Some(Operation::Malformed), "{opcode}");
        let short = request(opcode, 1, &vec![0; body - 1]);
        assert_eq!(operation(&short), Some(Operation::Malformed), "{opcode}");
        for length in 0..whole.len() {
            assert_eq!(Request::parse(&whole[..length]), None, "{opcode} {length}");
        }
    }
    assert_eq!(operation(&request(1, 1, b"no end")), Some(Operation::Malformed));
    for lie in [0, 39, u32::MAX] {
        let mut bytes = request(3, 1, &[0; 16]);
        bytes[..4].copy_from_slice(&lie.to_ne_bytes());
        assert_eq!(Request::parse(&bytes), None, "{lie}");
    }
}

fn answer(build: impl FnOnce(Answer<'_>)) -> Vec<u8> {
    let mut out = vec![9; 100];
    build(Answer::to(77, &mut out));
    assert_eq!(u32_at(&out, 0), u32::try_from(out.len()).ok());
    assert_eq!(u64_at(&out, 8), Some(77));
    out
}

#[test]
fn answers_have_the_sizes_that_linux_checks() {
    let attributes = Attributes { inode: 16, mode: 0o100_444, links: 1, uid: 5, gid: 6, time: 7 };
    for (size, bytes) in [
        (64, answer(|at| at.init().done())),
        (128, answer(|at| at.entry(attributes).done())),
        (104, answer(|at| at.attributes(attributes).done())),
        (16, answer(|at| at.opened(3, FOPEN_DIRECT_IO).done())),
        (80, answer(|at| at.statfs(16).done())),
        (0, answer(|at| at.done())),
        (0, answer(|at| at.bytes(b"left out").error(Errno::NOSYS))),
    ] {
        assert_eq!(bytes.len(), OUT_HEADER + size);
    }
}

#[test]
fn fields_are_where_linux_looks_for_them() {
    let init = answer(|at| at.init().done());
    assert_eq!((u32_at(&init, 16), u32_at(&init, 20), u32_at(&init, 36)), (Some(7), Some(31), Some(4096)));
    let attributes = Attributes { inode: 16, mode: 0o100_444, links: 1, uid: 5, gid: 6, time: 7 };
    let entry = answer(|at| at.entry(attributes).done());
    let attr = 16 + 40;
    assert_eq!((u64_at(&entry, 16), u64_at(&entry, attr)), (Some(16), Some(16)));
    let modes = [60, 64, 68, 72].map(|at| u32_at(&entry, attr + at));
    assert_eq!(modes, [Some(0o100_444), Some(1), Some(5), Some(6)]);
    let error = answer(|at| at.error(Errno::ACCESS));
    assert_eq!(u32_at(&error, 4), Some((-13_i32).cast_unsigned()));
}

#[test]
fn names_of_a_directory_are_padded_to_eight_bytes() {
    let both = answer(|at| at.name(1, 16, 0o100_444, "stat").name(2, 2, 0o40_555, "pressure0").done());
    assert_eq!(both.len(), 16 + name_size("stat") + name_size("pressure0"));
    assert_eq!(both.len(), 16 + 32 + 40);
    assert_eq!((u64_at(&both, 16), u64_at(&both, 24)), (Some(16), Some(1)));
    assert_eq!((u32_at(&both, 32), u32_at(&both, 36)), (Some(4), Some(8)));
    assert_eq!(&both[40..48], b"stat\0\0\0\0");
    assert_eq!((u64_at(&both, 48), u32_at(&both, 68)), (Some(2), Some(4)));
}
