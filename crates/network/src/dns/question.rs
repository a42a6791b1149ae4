//! As much of RFC 1035 as it takes to tell a plain question from anything else.

/// Header length.
const HEADER: usize = 12;

/// The largest question that is looked at; a name has at most 255 bytes, the rest is EDNS options.
pub(crate) const LONGEST: usize = 1024;

const ZONE_TRANSFERS: [u16; 2] = [251, 252];

/// What to do with a message from a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask the resolver.
    Forward,
    /// Answer with this code.
    Answer(Code),
    /// Not a question: say nothing.
    Ignore,
}

/// Response codes, RFC 1035 §4.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Malformed = 1,
    ServerFailure = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// Judges a message. Only a plain query of one name passes: the host's resolver may trust the host
/// with dynamic updates (RFC 2136) or with whole zones, and a sandbox is not the host.
pub(crate) fn judge(message: &[u8]) -> Verdict {
    let Some(header) = message.get(..HEADER) else { return Verdict::Ignore };
    let is_answer = header[2] & 0x80 != 0;
    let opcode = (header[2] >> 3) & 0xf;
    if is_answer || message.len() > LONGEST {
        return Verdict::Ignore;
    }
    if opcode != 0 {
        return Verdict::Answer(Code::NotImplemented);
    }
    match question(message) {
        None => Verdict::Answer(Code::Malformed),
        Some(question) if ZONE_TRANSFERS.contains(&kind(question)) => Verdict::Answer(Code::Refused),
        Some(_) => Verdict::Forward,
    }
}

/// Whether `answer` answers `asked`: same id, marked as an answer, same question (letters may
/// differ in case).
pub(crate) fn answers(answer: &[u8], asked: &[u8]) -> bool {
    answer.get(..2) == asked.get(..2)
        && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && match (question(answer), question(asked)) {
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            // A resolver that fails early may leave the question out.
            (None, _) => answer.len() == HEADER,
            _ => false,
        }
}

/// An answer without content, made from the question.
pub(crate) fn failure(asked: &[u8], code: Code) -> Vec<u8> {
    let mut answer = asked.get(..HEADER).unwrap_or_default().to_vec();
    if answer.len() < HEADER {
        return Vec::new();
    }
    answer[2] = 0x80 | (asked[2] & 0x79);
    answer[3] = 0x80 | code as u8;
    answer[4..12].fill(0);
    if let Some(question) = question(asked) {
        answer[5] = 1;
        answer.extend_from_slice(question);
    }
    answer
}

/// The only question: name, type and class.
fn question(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return message.get(HEADER..at + 5),
            // No compression in a question, and so no pointers that lead anywhere.
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
}

fn kind(question: &[u8]) -> u16 {
    match question {
        [.., high, low, _, _] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(flags: u8, kind: u8) -> Vec<u8> {
        let mut message = vec![7, 9, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(b"\x07example\x03com\x00\x00");
        message.extend_from_slice(&[kind, 0, 1]);
        message
    }

    #[test]
    fn a_plain_question_is_forwarded() {
        assert_eq!(judge(&query(1, 28)), Verdict::Forward);
    }

    #[test]
    fn updates_and_zone_transfers_are_not() {
        assert_eq!(judge(&query(5 << 3, 1)), Verdict::Answer(Code::NotImplemented));
        assert_eq!(judge(&query(1, 252)), Verdict::Answer(Code::Refused));
        assert_eq!(judge(&query(1, 251)), Verdict::Answer(Code::Refused));
    }

    #[test]
    fn garbage_is_ignored_or_called_malformed() {
        assert_eq!(judge(&[]), Verdict::Ignore);
        assert_eq!(judge(&query(0x81, 1)), Verdict::Ignore);
        assert_eq!(judge(&vec![0; LONGEST + 1]), Verdict::Ignore);
        assert_eq!(judge(&query(1, 1)[..20]), Verdict::Answer(Code::Malformed));
        let mut pointer = query(1, 1);
        pointer[12] = 0xc0;
        assert_eq!(judge(&pointer), Verdict::Answer(Code::Malformed));
    }

    #[test]
    fn an_answer_to_another_question_is_not_passed_on() {
        let asked = query(1, 1);
        let mut answer = query(0x81, 1);
        assert!(answers(&answer, &asked));
        answer[13] = b'E';
        assert!(answers(&answer, &asked));
        answer[13] = b'f';
        assert!(!answers(&answer, &asked));
        assert!(!answers(&asked, &asked));
        assert!(!answers(&query(0x81, 28), &asked));
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let asked = query(1, 1);
        let failure = failure(&asked, Code::ServerFailure);
        assert!(answers(&failure, &asked));
        assert_eq!(failure[3] & 0xf, 2);
    }
}
