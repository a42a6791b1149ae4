/// One netlink request: header, fixed body, attributes; netlink(7), rtnetlink(7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
    label: &'static str,
}

const HEADER: usize = 16;
const ALIGN: usize = 4;

impl Message {
    /// A request of this `kind` (`RTM_…`) with these flags beside `NLM_F_REQUEST` and a fixed body
    /// in the kernel's layout. `label` names it in errors ("add a route").
    pub fn new(label: &'static str, kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        let mut message = Self { bytes, label };
        message.pad();
        message
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.push_attribute(kind, value);
        self
    }

    /// Adds a string attribute, ended with a NUL as the kernel wants names.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute that holds what `fill` adds.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.push_attribute(kind, &[]);
        let mut message = fill(self);
        let length = (message.bytes.len() - start) as u16;
        message.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// Adds bytes that are no attribute, such as the `ifinfomsg` at the head of `VETH_INFO_PEER`.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(super) fn label(&self) -> &'static str {
        self.label
    }

    /// The bytes to send, numbered and with the additional flags.
    pub(crate) fn encode(&self, sequence: u32, flags: u16) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = bytes.len() as u32;
        let all = u16::from_ne_bytes([bytes[6], bytes[7]]) | flags;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[6..8].copy_from_slice(&all.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }

    fn push_attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

/// One message as received.
pub(super) struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// Splits what one recv(2) returned. Stops at the first message whose length does not fit, so a
/// truncated buffer yields what is whole in it.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32_at(header, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Received { kind: u16_at(header, 4)?, flags: u16_at(header, 6)?, sequence: u32_at(header, 8)?, payload })
    })
}

/// The attributes in a message's payload after its fixed body, or in a nested attribute.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { bytes }
}

/// Iterator over `(kind without flag bits, value)`; ends at the first malformed one.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.bytes, 0)?);
        let kind = u16_at(self.bytes, 2)? & !((libc::NLA_F_NESTED | libc::NLA_F_NET_BYTEORDER) as u16);
        let value = self.bytes.get(4..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_attribute_counts_its_padding() {
        let message = Message::new("x", 16, 0, &[0; 16]).nested(18, |m| m.text(1, "veth").attribute(2, &[7]));
        let bytes = message.encode(5, 0);
        let outer: Vec<_> = attributes(&bytes[32..]).collect();
        assert_eq!(outer.len(), 1);
        let inner: Vec<_> = attributes(outer[0].1).collect();
        assert_eq!(inner, [(1, b"veth\0".as_slice()), (2, [7].as_slice())]);
    }

    #[test]
    fn an_encoded_message_is_read_back() {
        let bytes = Message::new("x", 16, 0x400, &[1, 2, 3, 4]).encode(9, 4);
        let read: Vec<_> = messages(&bytes).map(|m| (m.kind, m.flags, m.sequence, m.payload.to_vec())).collect();
        assert_eq!(read, [(16, 0x405, 9, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn a_length_beyond_the_buffer_or_below_the_header_ends_the_reading() {
        let mut bytes = Message::new("x", 16, 0, &[0; 4]).encode(1, 0);
        bytes[0] = 200;
        assert_eq!(messages(&bytes).count(), 0);
        bytes[0] = 3;
        assert_eq!(messages(&bytes).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0, 9, 9]).count(), 0);
        assert_eq!(attributes(&[60, 0, 1, 0, 9, 9]).count(), 0);
    }
}
