//! Reading the notation: a cursor over words, no allocation.

use core::fmt;
use core::str::FromStr;

use super::NotedSegment;
use crate::seq::SeqNum;
use crate::tcp::{FastOpenCookie, Flags, Options, SackBlocks, Timestamps, WINDOW_SCALE_MAX};

/// Why a text is not a segment: what was expected, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotationError {
    /// Byte offset in the text.
    pub at: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl fmt::Display for NotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a segment: {} expected at byte {}", self.expected, self.at)
    }
}

impl core::error::Error for NotationError {}

impl FromStr for NotedSegment {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<NotedSegment, NotationError> {
        parse_notation(text)
    }
}

/// Reads a segment as packetdrill writes it.
///
/// Shorthands: without flags (`1:1001(1000)`) they are `.`; without a range (`. ack 1`) it is `1:1(0)`, or `0:0(0)` with
/// SYN; `ack` and `win` may be left unsaid; SACK blocks may stand outside of brackets (`. ack 1 sack 1001:2001`). `nop`
/// and `eol` are accepted anywhere among the options and mean nothing.
///
/// # Errors
/// [`NotationError`] says where and what was expected.
pub fn parse_notation(text: &str) -> Result<NotedSegment, NotationError> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.skip_space();
    let flags = cursor.flags()?;
    let (seq, end) = cursor.range(flags)?;
    let mut noted =
        NotedSegment { flags, seq, end, ack: None, win: None, urgent: 0, options: Options::default() };
    if cursor.take_word("ack") {
        if !flags.has(Flags::ACK) {
            return Err(cursor.error("no `ack` (write the flag `.` too)"));
        }
        noted.ack = Some(cursor.number("an acknowledgment number")?);
    }
    if cursor.take_word("win") {
        noted.win = Some(cursor.number("a window, 0 to 65535")?);
    }
    if cursor.take_word("urg") {
        if !flags.has(Flags::URG) {
            return Err(cursor.error("no `urg` (write the flag `U` too)"));
        }
        noted.urgent = cursor.number("an urgent pointer, 0 to 65535")?;
    }
    if cursor.take_word("sack") {
        noted.options.sack = cursor.sack_blocks()?;
    }
    if cursor.take("<") {
        cursor.options(&mut noted.options)?;
    }
    if cursor.rest().is_empty() { Ok(noted) } else { Err(cursor.error("the end")) }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, expected: &'static str) -> NotationError {
        NotationError { at: self.at, expected }
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    /// Takes `token` and the space behind it, if it stands here.
    fn take(&mut self, token: &str) -> bool {
        let is_here = self.rest().starts_with(token);
        if is_here {
            self.at += token.len();
            self.skip_space();
        }
        is_here
    }

    /// Takes `word` if it stands here as a whole word.
    fn take_word(&mut self, word: &str) -> bool {
        let is_here = self
            .rest()
            .strip_prefix(word)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
        is_here && self.take(word)
    }

    fn expect(&mut self, token: &'static str) -> Result<(), NotationError> {
        if self.take(token) { Ok(()) } else { Err(self.error(token)) }
    }

    fn number<T: FromStr>(&mut self, expected: &'static str) -> Result<T, NotationError> {
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value = rest[..len].parse().map_err(|_| self.error(expected))?;
        self.at += len;
        self.skip_space();
        Ok(value)
    }

    /// Flags up to the first space; `.` when the text starts with a sequence number.
    fn flags(&mut self) -> Result<Flags, NotationError> {
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(Flags::ACK);
        }
        if self.take("-") {
            return Ok(Flags::NONE);
        }
        let mut flags = Flags::NONE;
        let mut chars = self.rest().char_indices().take_while(|(_, c)| !matches!(c, ' ' | '\t' | '<'));
        let start = self.at;
        for (at, c) in &mut chars {
            let known = Flags::LETTERS.iter().find(|(_, letter)| *letter == c);
            let &(flag, _) = known.ok_or(NotationError {
                at: start + at,
                expected: "flags, of F S R P . U E W A, or - for none",
            })?;
            if flags.has(flag) {
                return Err(NotationError { at: start + at, expected: "each flag once" });
            }
            flags = flags | flag;
            self.at = start + at + c.len_utf8();
        }
        if flags == Flags::NONE {
            return Err(self.error("flags, of F S R P . U E W A, or - for none"));
        }
        self.skip_space();
        Ok(flags)
    }

    /// `1:1001(1000)`, or nothing.
    fn range(&mut self, flags: Flags) -> Result<(u32, u32), NotationError> {
        if !self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            let seq = if flags.has(Flags::SYN) { 0 } else { 1 };
            return Ok((seq, seq));
        }
        let seq: u32 = self.number("a sequence number")?;
        self.expect(":")?;
        let end: u32 = self.number("a sequence number")?;
        let len_at = self.at;
        self.expect("(")?;
        let len: u32 = self.number("a length")?;
        self.expect(")")?;
        if seq.wrapping_add(len) != end {
            return Err(NotationError { at: len_at, expected: "the length that the range has" });
        }
        Ok((seq, end))
    }

    /// `1001:2001 3001:4001`, one block at least, 4 at most.
    fn sack_blocks(&mut self) -> Result<SackBlocks, NotationError> {
        let mut blocks = SackBlocks::NONE;
        loop {
            let start: u32 = self.number("a SACK block, start:end")?;
            self.expect(":")?;
            let end: u32 = self.number("a SACK block, start:end")?;
            if !blocks.push(SeqNum(start), SeqNum(end)) {
                return Err(self.error("at most 4 SACK blocks"));
            }
            if !self.rest().starts_with(|c: char| c.is_ascii_digit()) {
                return Ok(blocks);
            }
        }
    }

    /// The hexadecimal digits of a Fast Open cookie; none for a request.
    fn cookie(&mut self) -> Result<FastOpenCookie, NotationError> {
        const EXPECTED: &str = "a cookie of 4 to 16 bytes in hexadecimal digits, an even number of bytes";
        let mut bytes = [0; FastOpenCookie::LEN_MAX];
        let digits = self.rest().bytes().take_while(u8::is_ascii_hexdigit).count();
        let len = digits / 2;
        if digits % 2 != 0 || len > bytes.len() {
            return Err(self.error(EXPECTED));
        }
        for (n, byte) in bytes[..len].iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&self.rest()[2 * n..2 * n + 2], 16).map_err(|_| self.error(EXPECTED))?;
        }
        let cookie = FastOpenCookie::new(&bytes[..len]).ok_or(self.error(EXPECTED))?;
        self.at += digits;
        self.skip_space();
        Ok(cookie)
    }

    /// The options behind `<`, and the `>`.
    fn options(&mut self, options: &mut Options) -> Result<(), NotationError> {
        loop {
            if self.take_word("mss") {
                options.mss = Some(self.number("an MSS, 0 to 65535")?);
            } else if self.take_word("sackOK") {
                options.sack_permitted = true;
            } else if self.take_word("TS") {
                self.expect("val")?;
                let val = self.number("a timestamp value")?;
                self.expect("ecr")?;
                let ecr = self.number("a timestamp echo")?;
                options.timestamps = Some(Timestamps { val, ecr });
            } else if self.take_word("wscale") {
                let shift_at = self.at;
                let shift = self.number("a window scale, 0 to 14")?;
                if shift > WINDOW_SCALE_MAX {
                    return Err(NotationError { at: shift_at, expected: "a window scale, 0 to 14" });
                }
                options.window_scale = Some(shift);
            } else if self.take_word("sack") {
                options.sack = self.sack_blocks()?;
            } else if self.take_word("FO") {
                options.fast_open = Some(self.cookie()?);
            } else if self.take_word("FOEXP") {
                options.fast_open = Some(self.cookie()?.experimental(true));
            } else if !self.take_word("nop") && !self.take_word("eol") {
                return Err(self.error("an option: mss, sackOK, TS, wscale, sack, FO, FOEXP, nop, eol"));
            }
            if self.take(">") {
                return Ok(());
            }
            self.expect(",")?;
        }
    }
}
