//! What travels on a port that several channels share: records, and markers by which both ends agree on where to begin.
//!
//! A port is one stream of bytes with no beginning: either end may go away in the middle of a record, and what it had written
//! reaches whoever comes next. So the guest begins an *epoch*: it sends a marker with a random number, the host answers with the
//! same number, and each skips everything before the other's marker. Records name their epoch.

/// Length of a record without its data.
pub(super) const RECORD: usize = 16;
/// Length of a marker.
pub(super) const MARKER: usize = 32;
/// Most data in one record.
pub(super) const MOST_DATA: usize = 32 << 10;
/// Version of these formats.
const VERSION: u32 = 1;
/// First word of a record.
const MAGIC: u16 = 0x5871;
/// Sixteen bytes that begin a marker: no record begins so.
const MARK: [u8; 16] = *b"\xffpxOS-port-sync\xff";

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Guest: a new channel.
    Open = 1,
    /// Bytes of a channel, as many as the value says.
    Data = 2,
    /// As many more bytes as the value says may be sent on the channel.
    Credit = 3,
    /// The channel is closed, both ways.
    Close = 4,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// What it says.
    pub(super) kind: Kind,
    /// Of which channel.
    pub(super) channel: u32,
    /// The lower half of the epoch.
    pub(super) epoch: u32,
    /// Length of the data, or a credit.
    pub(super) value: u32,
}

impl Record {
    pub(super) fn to_bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[2] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.channel.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[12..].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match bytes[2] {
            1 => Kind::Open,
            2 => Kind::Data,
            3 => Kind::Credit,
            4 => Kind::Close,
            _ => return None,
        };
        let record = Self { kind, channel: word(4), epoch: word(8), value: word(12) };
        let good = u16::from_le_bytes([bytes[0], bytes[1]]) == MAGIC
            && (kind != Kind::Data || record.value as usize <= MOST_DATA);
        good.then_some(record)
    }
}

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Mark {
    /// Guest: an epoch begins; all channels before it are gone.
    Begin = 1,
    /// Host: it has begun.
    Begun = 2,
    /// Host: begin a new one.
    Again = 3,
}

pub(super) fn marker(mark: Mark, epoch: u64) -> [u8; MARKER] {
    let mut bytes = [0; MARKER];
    bytes[..16].copy_from_slice(&MARK);
    bytes[16..20].copy_from_slice(&(mark as u32).to_le_bytes());
    bytes[20..24].copy_from_slice(&VERSION.to_le_bytes());
    bytes[24..].copy_from_slice(&epoch.to_le_bytes());
    bytes
}

fn read_marker(bytes: &[u8]) -> Option<(Mark, u64)> {
    let rest = bytes.strip_prefix(&MARK)?;
    let word = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
    let mark = match word(0) {
        1 => Mark::Begin,
        2 => Mark::Begun,
        3 => Mark::Again,
        _ => return None,
    };
    (word(4) == VERSION).then(|| (mark, u64::from(word(8)) | u64::from(word(12)) << 32))
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A marker and its epoch.
    Marker(Mark, u64),
    /// A record of the epoch, and its data.
    Record(Record, Vec<u8>),
    /// Neither: the stream has lost its step, and is scanned for a marker from here on.
    Lost,
}

/// Bytes that came, and where in them we are.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    /// The epoch whose records are read; `None` while a marker is looked for.
    pub(super) epoch: Option<u64>,
}

impl Input {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// What comes next, once it is whole.
    pub(super) fn next(&mut self) -> Option<Item> {
        let Some(epoch) = self.epoch else { return self.scan() };
        let left = &self.bytes[self.start..];
        if left.first() == MARK.first() {
            let whole: &[u8] = left.get(..MARKER)?;
            let Some((mark, epoch)) = read_marker(whole) else { return Some(self.lose()) };
            self.start += MARKER;
            return Some(Item::Marker(mark, epoch));
        }
        let bytes: &[u8; RECORD] = left.first_chunk()?;
        #[expect(clippy::cast_possible_truncation, reason = "records name the lower half")]
        let record = Record::from_bytes(bytes).filter(|record| record.epoch == epoch as u32);
        let Some(record) = record else { return Some(self.lose()) };
        let length = if record.kind == Kind::Data { record.value as usize } else { 0 };
        let data = left.get(RECORD..RECORD + length)?.to_vec();
        self.start += RECORD + length;
        Some(Item::Record(record, data))
    }

    fn lose(&mut self) -> Item {
        self.epoch = None;
        Item::Lost
    }

    /// The next marker, whatever lies before it.
    fn scan(&mut self) -> Option<Item> {
        loop {
            let left = &self.bytes[self.start..];
            let found = left.windows(MARK.len()).position(|window| window == MARK);
            let Some(at) = found else {
                // What may be the beginning of a marker is kept.
                self.start = self.bytes.len() - left.len().min(MARK.len() - 1);
                return None;
            };
            self.start += at;
            let whole = self.bytes[self.start..].get(..MARKER)?;
            let read = read_marker(whole);
            self.start += if read.is_some() { MARKER } else { 1 };
            if let Some((mark, epoch)) = read {
                return Some(Item::Marker(mark, epoch));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(value: u32) -> Record {
        Record { kind: Kind::Data, channel: 3, epoch: 77, value }
    }

    #[test]
    fn records_come_back_however_they_are_cut() {
        let mut bytes = marker(Mark::Begin, 77).to_vec();
        for length in [0_u32, 1, 1000] {
            bytes.extend(record(length).to_bytes());
            bytes.extend(vec![7; length as usize]);
        }
        for piece in [1, 5, 31, 5000] {
            let mut input = Input::default();
            let mut items = Vec::new();
            for part in bytes.chunks(piece) {
                input.extend(part);
                while let Some(item) = input.next() {
                    if let Item::Marker(_, epoch) = item {
                        input.epoch = Some(epoch);
                    }
                    items.push(item);
                }
            }
            assert_eq!(items.len(), 4);
            assert_eq!(items[0], Item::Marker(Mark::Begin, 77));
            assert_eq!(items[3], Item::Record(record(1000), vec![7; 1000]));
        }
    }

    #[test]
    fn what_lies_before_a_marker_is_skipped() {
        let mut input = Input::default();
        // A torn record, half a marker, a marker of another version, and then a good one.
        let mut bytes = record(1000).to_bytes().to_vec();
        bytes.extend(&MARK[..9]);
        let mut other = marker(Mark::Begin, 5);
        other[20] = 9;
        bytes.extend(other);
        bytes.extend(marker(Mark::Begun, 8));
        input.extend(&bytes);
        assert_eq!(input.next(), Some(Item::Marker(Mark::Begun, 8)));
        assert_eq!(input.next(), None);
    }

    #[test]
    fn records_of_another_epoch_or_of_no_kind_are_seen() {
        for bytes in [
            Record { epoch: 78, ..record(0) }.to_bytes(),
            Record { value: u32::try_from(MOST_DATA).unwrap() + 1, ..record(0) }.to_bytes(),
            [0; RECORD],
        ] {
            let mut input = Input { epoch: Some(77), ..Input::default() };
            input.extend(&bytes);
            assert_eq!(input.next(), Some(Item::Lost));
            input.extend(&marker(Mark::Begin, 9));
            assert_eq!(input.next(), Some(Item::Marker(Mark::Begin, 9)));
        }
    }

    proptest! {
        #[test]
        fn a_marker_is_found_behind_any_garbage(garbage in proptest::collection::vec(any::<u8>(), 0..2000), cut in 1_usize..64) {
            let mut input = Input { epoch: Some(1), ..Input::default() };
            let mut found = false;
            let all = [&garbage[..], &marker(Mark::Begin, 42)].concat();
            for part in all.chunks(cut) {
                input.extend(part);
                while let Some(item) = input.next() {
                    found |= item == Item::Marker(Mark::Begin, 42);
                }
            }
            // Garbage that looks like the beginning of a long record may swallow the marker; the next one is found.
            if !found {
                input.extend(&vec![0; MOST_DATA + RECORD]);
                while input.next().is_some() {}
                input.extend(&marker(Mark::Begin, 42));
                while let Some(item) = input.next() {
                    found |= item == Item::Marker(Mark::Begin, 42);
                }
            }
            prop_assert!(found);
        }
    }
}
