//! Seeded mutations of a corpus, without a look at coverage: what the smoke test runs.

use hoststack_transport::Rng;

/// Bytes that are more likely to matter than others.
const SPECIAL: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0x10, 0x40, 0xfe];

/// A new input: one of the corpus (or nothing, if it is empty), changed in a few places, at most `len_max` bytes long.
pub fn mutate(corpus: &[Vec<u8>], len_max: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = pick(corpus, rng).to_vec();
    for _ in 0..=rng.below(4) {
        change(&mut bytes, corpus, rng);
    }
    bytes.truncate(len_max);
    bytes
}

fn pick<'c>(corpus: &'c [Vec<u8>], rng: &mut Rng) -> &'c [u8] {
    if corpus.is_empty() { &[] } else { &corpus[below(corpus.len(), rng)] }
}

/// A number below `end`, at least 1.
fn below(end: usize, rng: &mut Rng) -> usize {
    // Corpora and inputs are far smaller than 2^32.
    rng.below(end as u32) as usize
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    let at = below(bytes.len() + 1, rng);
    let byte = rng.u32().to_le_bytes()[0];
    match rng.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
        1 if at < bytes.len() => bytes[at] = byte,
        2 if at < bytes.len() => bytes[at] = SPECIAL[usize::from(byte) % SPECIAL.len()],
        3 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(byte % 9).wrapping_sub(4),
        4 => {
            let end = bytes.len().min(at + 1 + usize::from(byte % 16));
            bytes.drain(at..end);
        }
        5 => {
            // A stretch of itself again.
            let end = bytes.len().min(at + usize::from(byte % 32));
            let copy = bytes[at..end].to_vec();
            let to = below(bytes.len() + 1, rng);
            bytes.splice(to..to, copy);
        }
        6 => {
            // The rest of another.
            let other = pick(corpus, rng);
            let from = below(other.len() + 1, rng);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let new: Vec<u8> = (0..=byte % 8).map(|_| rng.u32().to_le_bytes()[0]).collect();
            bytes.splice(at..at, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_mutations_and_they_stay_within_the_limit() {
        let corpus = vec![vec![1, 2, 3, 4], vec![9; 40], vec![]];
        let run = |seed| {
            let mut rng = Rng::from_seed(seed);
            (0..500).map(|_| mutate(&corpus, 32, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().all(|bytes| bytes.len() <= 32));
    }

    #[test]
    fn something_comes_of_nothing() {
        let mut rng = Rng::from_seed(3);
        assert!((0..100).any(|_| !mutate(&[], 32, &mut rng).is_empty()));
    }
}
