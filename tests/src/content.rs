//! File contents that can be told apart, and their digests.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes made or read at a time.
const BLOCK: usize = 64 * 1024;

/// Writes `length` bytes that depend on `seed` and never repeat in step with a segment, and returns their SHA-256.
///
/// # Panics
/// When the file cannot be written.
pub fn write_file(path: &Path, length: u64, seed: u64) -> String {
    let mut file = BufWriter::new(File::create(path).expect("a file for the content"));
    let mut digest = Sha256::new();
    let mut state = seed;
    let mut block = vec![0; BLOCK];
    let mut left = length;
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&next(&mut state).to_le_bytes());
        }
        // Cannot truncate: at most BLOCK.
        let part = &block[..left.min(BLOCK as u64) as usize];
        digest.update(part);
        file.write_all(part).expect("room for the content");
        left -= part.len() as u64;
    }
    file.flush().expect("room for the content");
    hex(&digest.finalize())
}

/// Fills `into` with the bytes from `offset` on of the endless content of `seed`: that of [`write_file`].
pub fn fill(seed: u64, offset: u64, into: &mut [u8]) {
    let mut at = offset;
    for part in chunks_at(into, offset) {
        let word = mix(seed.wrapping_add((at / 8 + 1).wrapping_mul(GAMMA))).to_le_bytes();
        // Cannot truncate: below 8.
        let within = (at % 8) as usize;
        part.copy_from_slice(&word[within..within + part.len()]);
        at += part.len() as u64;
    }
}

/// `bytes` cut where the words of a content are that begins `offset` before it.
fn chunks_at(bytes: &mut [u8], offset: u64) -> impl Iterator<Item = &mut [u8]> {
    // Cannot truncate: below 8.
    let head = ((8 - offset % 8) % 8) as usize;
    let (first, rest) = bytes.split_at_mut(head.min(bytes.len()));
    std::iter::once(first).chain(rest.chunks_mut(8))
}

/// SHA-256 of a file.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn sha256(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block).expect("a readable file") {
            0 => return hex(&digest.finalize()),
            count => digest.update(&block[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(GAMMA);
    mix(*state)
}

/// What splitmix64 adds to its state.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_its_length_and_the_digest_that_was_returned() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 1, 65_536, 65_537, 200_001] {
            let path = dir.path().join("file");
            let written = write_file(&path, length, 7);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
            assert_eq!(written, sha256(&path));
        }
    }

    #[test]
    fn any_part_of_a_content_is_that_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_file(&path, 1000, 9);
        let whole = std::fs::read(&path).unwrap();
        for (offset, length) in [(0, 1000), (0, 0), (1, 1), (3, 100), (7, 2), (8, 8), (13, 3), (990, 10)] {
            let mut part = vec![0; length];
            fill(9, offset as u64, &mut part);
            assert_eq!(part, whole[offset..offset + length], "{length} from {offset}");
        }
    }

    #[test]
    fn digest_is_sha256() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256(&path), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn another_seed_is_another_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_ne!(write_file(&path, 1000, 1), write_file(&path, 1000, 2));
    }
}
