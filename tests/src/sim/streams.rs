//! Bytes that know who they are: every stream begins with its own id, and each byte follows from the id and its place.
//! So whoever reads, an app, a villain or a wire, can tell whose byte it is and whether it is the right one.

use super::dice::{Dice, mix};

/// Bytes of the id at the start of each stream.
pub(crate) const HEADER: usize = 8;

/// One direction of one session, as its writer sees it.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// Its first bytes.
    pub(crate) id: u64,
    /// Bytes that the writer's stack took.
    pub(crate) written: u64,
    /// Whether the writer wrote its last byte and said so.
    pub(crate) ended: bool,
    /// Whether a simulated peer writes it: it keeps no promise.
    pub(crate) is_villains: bool,
}

/// All streams of a world.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Stream>);

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader {
    /// Bytes read.
    pub(crate) got: u64,
    header: [u8; HEADER],
}

/// The byte at `position` of stream `id`.
pub(crate) fn byte(id: u64, position: u64) -> u8 {
    if position < HEADER as u64 {
        id.to_le_bytes()[position as usize]
    } else {
        (mix(id ^ (position >> 3)) >> ((position & 7) * 8)) as u8 // a byte of it is wanted
    }
}

/// Writes what stream `id` says from `position` on.
pub(crate) fn fill(id: u64, position: u64, into: &mut [u8]) {
    let mut word = None;
    for (place, at) in into.iter_mut().zip(position..) {
        if at < HEADER as u64 {
            *place = byte(id, at);
            continue;
        }
        let value = match word {
            Some((index, value)) if index == at >> 3 => value,
            _ => {
                let value = mix(id ^ (at >> 3));
                word = Some((at >> 3, value));
                value
            }
        };
        *place = (value >> ((at & 7) * 8)) as u8; // a byte of it is wanted
    }
}

/// Where bytes differ from what stream `id` says from `position` on.
fn differs(id: u64, position: u64, bytes: &[u8]) -> Option<u64> {
    let mut word = (u64::MAX, 0);
    for (&found, at) in bytes.iter().zip(position..) {
        if at >= HEADER as u64 && word.0 != at >> 3 {
            word = (at >> 3, mix(id ^ (at >> 3)));
        }
        let wanted = if at < HEADER as u64 { byte(id, at) } else { (word.1 >> ((at & 7) * 8)) as u8 };
        if found != wanted {
            return Some(at);
        }
    }
    None
}

impl Streams {
    /// A new stream.
    pub(crate) fn open(&mut self, dice: &mut Dice, is_villains: bool) -> u64 {
        let id = (dice.u64() << 20) | self.0.len() as u64;
        self.0.push(Stream { id, written: 0, ended: false, is_villains });
        id
    }

    /// The stream of an id.
    pub(crate) fn get(&self, id: u64) -> Option<&Stream> {
        self.0.get((id & 0xf_ffff) as usize).filter(|stream| stream.id == id)
    }

    /// The stream of an id.
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Stream> {
        self.0.get_mut((id & 0xf_ffff) as usize).filter(|stream| stream.id == id)
    }

    /// Whether these bytes, from `position` on, are those of the stream that the reader reads, and were written.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn check(&self, reader: &mut Reader, position: u64, bytes: &[u8]) -> Result<(), String> {
        let mut bytes = bytes;
        let mut position = position;
        while position < HEADER as u64 && !bytes.is_empty() {
            let place = &mut reader.header[position as usize];
            if position >= reader.got {
                if position > reader.got {
                    return Err(format!("byte {position} came before byte {}", reader.got));
                }
                *place = bytes[0];
                reader.got = position + 1;
            } else if *place != bytes[0] {
                return Err(format!("byte {position} was {:#04x} and is now {:#04x}", place, bytes[0]));
            }
            position += 1;
            bytes = &bytes[1..];
        }
        if bytes.is_empty() && reader.got < HEADER as u64 {
            return Ok(());
        }
        let id = u64::from_le_bytes(reader.header);
        let Some(stream) = self.get(id) else {
            return Err(format!("a stream begins with {id:#x}, which nobody wrote"));
        };
        let end = position + bytes.len() as u64;
        if end > stream.written {
            return Err(format!("byte {end} of stream {id:#x} was never written: it has {}", stream.written));
        }
        if let Some(at) = differs(id, position, bytes) {
            return Err(format!("byte {at} of stream {id:#x} is another's"));
        }
        reader.got = reader.got.max(end);
        Ok(())
    }
}

impl Reader {
    /// The stream that it reads, once its header was read.
    pub(crate) fn id(&self) -> Option<u64> {
        (self.got >= HEADER as u64).then(|| u64::from_le_bytes(self.header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(streams: &mut Streams, len: u64) -> (u64, Vec<u8>) {
        let id = streams.open(&mut Dice::new(1), false);
        streams.get_mut(id).unwrap().written = len;
        let mut bytes = vec![0; len as usize];
        fill(id, 0, &mut bytes);
        (id, bytes)
    }

    #[test]
    fn the_right_bytes_pass_in_pieces_and_again() {
        let mut streams = Streams::default();
        let (id, bytes) = written(&mut streams, 100);
        let mut reader = Reader::default();
        for (at, piece) in bytes.chunks(3).enumerate() {
            streams.check(&mut reader, at as u64 * 3, piece).unwrap();
        }
        assert_eq!((reader.got, reader.id()), (100, Some(id)));
        streams.check(&mut reader, 5, &bytes[5..20]).unwrap();
        assert!(bytes.iter().enumerate().all(|(at, &found)| found == byte(id, at as u64)));
    }

    #[test]
    fn a_wrong_a_missing_and_an_invented_byte_are_found() {
        let mut streams = Streams::default();
        let (_, mut bytes) = written(&mut streams, 50);
        assert!(streams.check(&mut Reader::default(), 2, &bytes[2..]).is_err(), "two bytes are missing");
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(streams.check(&mut Reader::default(), 0, &longer).is_err(), "one byte too many");
        bytes[30] ^= 1;
        assert!(streams.check(&mut Reader::default(), 0, &bytes).is_err(), "one bit is wrong");
        assert!(streams.check(&mut Reader::default(), 0, &[9; 20]).is_err(), "nobody's");
    }
}
