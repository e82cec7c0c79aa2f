//! The first bytes of a stream, given with the connect: a transport may send them with its first packet.

use alloc::sync::Arc;
use core::fmt;

/// Bytes that a connect may be given along; see [`EarlyData`]. What exceeds one segment gains nothing by being early.
pub const EARLY_DATA_MAX: usize = 16 * 1024;

/// The first bytes of a stream, given with the connect. They are sent first, and are delivered to the peer's app exactly
/// once, but for transports that say otherwise (RFC 7413 §2.1: data in a SYN may be delivered twice). Clones are cheap.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EarlyData(Option<Arc<[u8]>>);

impl EarlyData {
    /// No bytes.
    pub const NONE: EarlyData = EarlyData(None);

    /// A copy of these bytes; the caller sees to [`EARLY_DATA_MAX`].
    pub fn new(bytes: &[u8]) -> EarlyData {
        EarlyData((!bytes.is_empty()).then(|| bytes.into()))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for EarlyData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EarlyData({} bytes)", self.len())
    }
}
