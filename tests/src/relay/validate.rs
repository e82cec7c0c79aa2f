//! The link measured from outside, kernel to kernel: its rate by a bulk transfer, its delay by `ping`.

use std::time::Duration;

use serde_json::{Value, json};

use super::bulk::{Sender, transfer};
use super::compare::Cell;
use super::link::Shape;
use super::path::{FAR, Near, Path};
use crate::wait;

/// Bytes of a full frame of the kernel's, and of the stream in it: MTU 1500, timestamps.
const FRAME: f64 = 1514.0;
const PAYLOAD: f64 = 1448.0;

/// What the measurement found.
#[derive(Clone, Copy, Debug)]
pub struct Validation {
    /// The cell, its loss left out.
    pub cell: Cell,
    /// Bits in a second on the wire, from the goodput.
    pub rate: f64,
    /// Half of the echoes took at most this, in ms.
    pub ping_ms: f64,
    /// The most by which a frame left too late, in ms.
    pub late_ms_max: f64,
}

impl Validation {
    /// The share by which the rate is off.
    #[must_use]
    pub fn rate_error(&self) -> f64 {
        (self.rate / self.cell.rate_bits_per_second as f64 - 1.0).abs()
    }

    /// The share by which the round trip is off.
    #[must_use]
    pub fn rtt_error(&self) -> f64 {
        (self.ping_ms / f64::from(self.cell.rtt_ms) - 1.0).abs()
    }

    /// Whether the link is what it should be: its rate within 2 %, its round trip within 5 %.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rate_error() <= 0.02 && self.rtt_error() <= 0.05
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "rtt_ms": self.cell.rtt_ms, "rate_bits_per_second": self.rate, "rate_error": self.rate_error(),
            "ping_ms": self.ping_ms, "rtt_error": self.rtt_error(), "late_ms_max": self.late_ms_max,
            "good": self.is_good(),
        })
    }
}

/// Measures the link of a cell for so long.
///
/// # Errors
/// A sentence: what went wrong.
pub fn validate(cell: Cell, length: Duration) -> Result<Validation, String> {
    let cell = Cell { loss: 0.0, ..cell };
    // A buffer so long that the wire never runs dry: this is about the link, not about the sender.
    let shapes = cell.shapes(0).map(|shape| Shape { buffer_bytes: shape.buffer_bytes * 4, ..shape });
    let mut path = Path::new(Near::Kernel, shapes);
    // Before the transfer: no queue. The first echo waits for ARP.
    let mut ping = path.near.command("ping");
    ping.args(["-n", "-c", "30", "-i", "0.05", &FAR.to_string()]);
    let echoes = crate::process::Process::spawn("ping", ping).wait(wait::READY);
    let ping_ms = median_ms(&echoes.stdout).ok_or_else(|| format!("no echoes\n{}", echoes.transcript()))?;
    let moved = transfer(&path, Sender::Kernel("cubic"), length, length.mul_f64(0.25))?;
    let pumped = path.stop();
    Ok(Validation {
        cell,
        rate: moved.goodput * FRAME / PAYLOAD,
        ping_ms,
        late_ms_max: pumped.late_ns_max as f64 / 1e6,
    })
}

/// The median of the times that `ping` printed.
fn median_ms(printed: &str) -> Option<f64> {
    let time = |line: &str| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok();
    let mut times: Vec<f64> = printed.lines().filter_map(time).collect();
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_what_ping_prints() {
        let line = |ms| format!("64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time={ms} ms\n");
        assert_eq!(median_ms(&["20.1", "10.3", "10.1"].map(line).concat()), Some(10.3));
        assert_eq!(median_ms("100% packet loss"), None);
    }
}
