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
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
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
