//! How a target reads its bytes.

/// A cursor over the bytes of an input. Past their end everything is 0 (false, `None`, the first choice).
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// At the front of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// Whether all bytes were read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let count = self.rest.len().min(N);
        let mut array = [0; N];
        array[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The lowest bit of a byte.
    pub fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// A number below `end`, of one byte where that is enough, else of two or four.
    ///
    /// # Panics
    /// When `end` is 0.
    pub fn below(&mut self, end: u32) -> u32 {
        let number = match end {
            0..=0x100 => u32::from(self.u8()),
            0x101..=0x1_0000 => u32::from(self.u16()),
            _ => self.u32(),
        };
        number % end
    }

    /// One of `choices`, which must not be empty.
    ///
    /// # Panics
    /// When it is.
    pub fn choice<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.u8()) % choices.len()]
    }

    /// A distance from something that matters: mostly 0, often a byte or a thousand bytes to either side, seldom
    /// anything.
    pub fn near(&mut self) -> i32 {
        match self.u8() % 8 {
            0..=2 => 0,
            // None of the casts cuts: they give a byte, or two, their sign.
            3 => i32::from(self.u8() as i8) / 32,
            4 => i32::from(self.u8() as i8) * 500,
            5 | 6 => i32::from(self.u16() as i16),
            _ => self.u32() as i32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_front_and_past_the_end_they_are_0() {
        let mut input = Input::new(&[1, 2, 3, 4, 5, 6]);
        assert_eq!((input.u8(), input.u16(), input.rest()), (1, 0x0302, &[4, 5, 6][..]));
        assert_eq!((input.u32(), input.is_empty()), (0x0006_0504, true));
        assert_eq!((input.u8(), input.near(), input.choice(&[7, 8]), input.below(9)), (0, 0, 7, 0));
    }

    #[test]
    fn a_number_takes_as_many_bytes_as_its_bound_needs() {
        let mut input = Input::new(&[255, 1, 1, 1, 0, 0, 0]);
        assert_eq!((input.below(256), input.below(257), input.below(1 << 20)), (255, 0, 1));
    }

    #[test]
    fn near_has_both_signs() {
        assert_eq!(Input::new(&[3, 0x80]).near(), -4);
        assert_eq!(Input::new(&[4, 2]).near(), 1000);
        assert_eq!(Input::new(&[5, 0xff, 0xff]).near(), -1);
    }
}
