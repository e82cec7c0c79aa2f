//! What a poller tells of a socket by, and a timer of what it is for: what it is, slot and generation.

use hoststack_transport::Key;

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Something in the pool: a half-open, or a connection.
    Record(Key),
    /// A listener.
    Listener(Key),
}

const LISTENER: u64 = 1 << 63;

impl Token {
    pub(crate) const fn as_u64(self) -> u64 {
        let (mark, key) = match self {
            Token::Record(key) => (0, key),
            Token::Listener(key) => (LISTENER, key),
        };
        mark | ((key.slot as u64) << 28) | key.generation as u64 // widens
    }

    pub(crate) const fn from_u64(token: u64) -> Token {
        // Cannot cut: masked to 28 bits.
        let key = Key { slot: ((token >> 28) & Key::MASK) as u32, generation: (token & Key::MASK) as u32 };
        if token & LISTENER == 0 { Token::Record(key) } else { Token::Listener(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let most = Key { slot: (1 << 28) - 1, generation: (1 << 28) - 1 };
        for key in [Key { slot: 0, generation: 0 }, Key { slot: 5, generation: 7 }, most] {
            assert_eq!(Token::from_u64(Token::Record(key).as_u64()), Token::Record(key));
            assert_eq!(Token::from_u64(Token::Listener(key).as_u64()), Token::Listener(key));
        }
    }
}
