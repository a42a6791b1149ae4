use super::*;
use crate::wire::tests::request;

/// Says how often it was asked.
struct Counter {
    rendered: u32,
    length: usize,
}

impl Source for Counter {
    fn render(&mut self, node: Node, out: &mut Vec<u8>) -> io::Result<()> {
        if node == Node::Diskstats {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.rendered += 1;
        out.extend_from_slice(format!("{:>width$}", self.rendered, width = self.length).as_bytes());
        Ok(())
    }
}

struct World {
    session: Session,
    source: Counter,
}

impl World {
    fn new(length: usize) -> Self {
        let session = Session::new(Owner { uid: 500_000, gid: 500_001 }, 1_700_000_000, 1000);
        Self { session, source: Counter { rendered: 0, length } }
    }

    fn raw(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = b"of the last request".to_vec();
        self.session.answer(bytes, &mut self.source, &mut out);
        out
    }

    /// The body of the answer, or the error.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        let answer = self.raw(&request(opcode, node, body));
        let length = u32::from_ne_bytes(*answer.first_chunk().unwrap());
        assert_eq!(length as usize, answer.len());
        assert_eq!(answer[8..16], 77_u64.to_ne_bytes());
        match i32::from_ne_bytes(*answer[4..].first_chunk().unwrap()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    fn read(&mut self, handle: u64, node: Node, offset: u64, size: u32) -> Result<Vec<u8>, i32> {
        let mut body = [handle.to_ne_bytes(), offset.to_ne_bytes()].concat();
        body.extend_from_slice(&size.to_ne_bytes());
        body.resize(40, 0);
        self.ask(15, node as u64, &body)
    }

    fn open(&mut self, node: Node, flags: u32) -> Result<u64, i32> {
        let body = [flags.to_ne_bytes(), [0; 4]].concat();
        self.ask(14, node as u64, &body).map(|answer| {
            assert_eq!(answer[8] & 1, 1, "without direct I/O a file of size 0 reads as empty");
            u64::from_ne_bytes(*answer.first_chunk().unwrap())
        })
    }
}

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ENOSYS: i32 = 38;
const ENOENT: i32 = 2;
const EPROTO: i32 = 71;

#[test]
fn a_file_keeps_its_text_until_it_is_read_from_the_start_again() {
    let mut world = World::new(4);
    let (first, second) = (world.open(Node::Stat, 0).unwrap(), world.open(Node::Stat, 0).unwrap());
    assert_ne!(first, second);
    assert_eq!(world.read(first, Node::Stat, 0, 100).unwrap(), b"   1");
    assert_eq!(world.read(second, Node::Stat, 0, 3).unwrap(), b"   ");
    assert_eq!(world.read(first, Node::Stat, 2, 100).unwrap(), b" 1");
    assert_eq!(world.read(second, Node::Stat, 3, 100).unwrap(), b"2");
    assert_eq!(world.read(first, Node::Stat, 4, 100).unwrap(), b"");
    assert_eq!(world.read(first, Node::Stat, u64::MAX, u32::MAX).unwrap(), b"");
    assert_eq!(world.read(first, Node::Stat, 0, 100).unwrap(), b"   3");
    world.ask(18, Node::Stat as u64, &[&first.to_ne_bytes()[..], &[0; 16]].concat()).unwrap();
    assert_eq!(world.session.held().1, 1);
}

#[test]
fn a_file_opened_with_an_earlier_server_goes_on() {
    let mut world = World::new(4);
    assert_eq!(world.read(3, Node::Stat, 2, 100).unwrap(), b" 1");
}

#[test]
fn nothing_is_held_for_an_open_and_little_for_a_flood_of_reads() {
    let mut world = World::new(2000);
    for _ in 0..10_000 {
        let handle = world.open(Node::Meminfo, 0).unwrap();
        assert_eq!(world.session.held().1, 0);
        let _ = handle;
    }
    for handle in 0..10_000 {
        world.read(handle, Node::Meminfo, 0, 4096).unwrap();
        assert!(world.session.held().0 <= 1 << 20);
    }
}

#[test]
fn files_are_only_read() {
    let mut world = World::new(1);
    for flags in [1, 2, 3, 0o1001] {
        assert_eq!(world.open(Node::Swaps, flags), Err(EACCES), "{flags}");
    }
    assert_eq!(world.ask(4, Node::Swaps as u64, &[0; 88]), Err(EACCES));
    assert_eq!(world.ask(34, Node::Swaps as u64, &[2, 0, 0, 0, 0, 0, 0, 0]), Err(EACCES));
    assert_eq!(world.ask(34, Node::Swaps as u64, &[4, 0, 0, 0, 0, 0, 0, 0]), Ok(vec![]));
    assert_eq!(world.ask(34, 1, &[1, 0, 0, 0, 0, 0, 0, 0]), Ok(vec![]));
    assert_eq!(world.ask(16, Node::Swaps as u64, &[0; 50]), Err(ENOSYS));
}

#[test]
fn names_and_attributes_are_told() {
    let mut world = World::new(1);
    let entry = world.ask(1, 1, b"meminfo\0").unwrap();
    assert_eq!(entry[..8], (Node::Meminfo as u64).to_ne_bytes());
    let attributes = world.ask(3, Node::Meminfo as u64, &[0; 16]).unwrap();
    assert_eq!(entry[40..], attributes[16..]);
    let word = |at: usize| u32::from_ne_bytes(*attributes[16 + at..].first_chunk().unwrap());
    assert_eq!(word(24), 1_700_000_000);
    assert_eq!([word(60), word(64), word(68), word(72)], [0o100_444, 1, 500_000, 500_001]);
    assert_eq!(world.ask(1, 1, b"kcore\0"), Err(ENOENT));
    assert_eq!(world.ask(3, 4711, &[0; 16]), Err(ENOENT));
    assert_eq!(world.ask(27, Node::Stat as u64, &[0; 8]), Err(ENOTDIR));
    assert_eq!(world.ask(14, 1, &[0; 8]), Err(EISDIR));
}

#[test]
fn a_directory_is_listed_over_several_answers() {
    let mut world = World::new(1);
    let (mut names, mut offset) = (Vec::new(), 0_u64);
    loop {
        let mut body = [[0; 8], offset.to_ne_bytes()].concat();
        body.extend_from_slice(&100_u32.to_ne_bytes());
        body.resize(40, 0);
        let listing = world.ask(28, 1, &body).unwrap();
        if listing.is_empty() {
            break;
        }
        assert!(listing.len() <= 100);
        let mut at = &listing[..];
        while !at.is_empty() {
            offset = u64::from_ne_bytes(*at[8..].first_chunk().unwrap());
            let length = at[16] as usize;
            names.push(String::from_utf8(at[24..24 + length].to_vec()).unwrap());
            at = &at[24 + length.next_multiple_of(8)..];
        }
    }
    assert_eq!(names[..4], [".", "..", "pressure", "dmi"]);
    assert_eq!(names.len(), 4 + NODES.iter().filter(|(_, path, _)| !path.contains('/')).count());
}

#[test]
fn the_first_request_settles_the_protocol() {
    let mut world = World::new(1);
    let init = |major: u32, minor: u32| [major.to_ne_bytes(), minor.to_ne_bytes(), [0; 4], [0xff; 4]].concat();
    for (major, minor, expected) in
        [(7, 45, Ok(64)), (7, 31, Ok(64)), (8, 0, Ok(64)), (7, 30, Err(EPROTO)), (6, 99, Err(EPROTO))]
    {
        assert_eq!(world.ask(26, 0, &init(major, minor)).map(|answer| answer.len()), expected, "{major}.{minor}");
    }
}

#[test]
fn some_requests_have_no_answer_and_unknown_ones_have_one() {
    let mut world = World::new(1);
    for opcode in [2, 36, 41, 42] {
        assert_eq!(world.raw(&request(opcode, 16, &[0; 16])), b"", "{opcode}");
    }
    for opcode in [5, 6, 8, 13, 21, 22, 35, 40, 43, 44, 46, 50, 51, 52, 4096, u32::MAX] {
        assert_eq!(world.ask(opcode, 16, &[0; 64]), Err(ENOSYS), "{opcode}");
    }
    assert_eq!(world.ask(39, 16, &[0; 32]), Err(ENOTTY));
    assert_eq!(world.read(1, Node::Diskstats, 0, 10), Err(EIO));
}

#[test]
fn no_bytes_at_all_make_it_panic() {
    let mut world = World::new(10);
    assert_eq!(world.ask(15, 16, &[0; 3]), Err(EINVAL));
    let mut state = 1_u64;
    for round in 0..200_000_u32 {
        // xorshift: the same bytes in every run.
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let body: Vec<u8> = (0..next() % 64).map(|_| (next() % 5) as u8 * 63).collect();
        let mut bytes = request(round % 56, next() % 40, &body);
        if next() % 4 == 0 {
            bytes.truncate((next() % 64) as usize);
        }
        let answer = world.raw(&bytes);
        assert!(answer.is_empty() || answer.len() >= 16);
    }
}
