//! Proportional rate reduction (RFC 6937bis): in fast recovery, for every ssthresh/RecoverFS bytes that arrive one is
//! sent, so that the window comes down to ssthresh over a round trip and not at once.

/// The variables of one recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prr {
    /// prr_delivered: bytes that arrived since recovery began.
    delivered: u64,
    /// prr_out: bytes sent since.
    out: u64,
    /// RecoverFS: bytes in flight when it began.
    recover_fs: u32,
    /// cwnd = pipe + sndcnt.
    window: u32,
}

impl Prr {
    /// Recovery begins with `flight` outstanding (SND.NXT - SND.UNA), of which `sacked` were SACKed earlier; `acked` was
    /// acknowledged by the segment that began it.
    pub(crate) fn begin(flight: u32, sacked: u32, acked: u32) -> Prr {
        Prr { recover_fs: (flight.saturating_sub(sacked) + acked).max(1), ..Prr::default() }
    }

    /// An acknowledgment delivered `delivered` bytes; `is_safe` if SND.UNA moved and nothing more was found lost
    /// (SafeACK).
    pub(crate) fn on_ack(&mut self, delivered: u32, pipe: u32, ssthresh: u32, mss: u32, is_safe: bool) {
        self.delivered += u64::from(delivered);
        let ssthresh = u64::from(ssthresh);
        let sndcnt = if u64::from(pipe) > ssthresh {
            // Proportional rate reduction.
            (self.delivered * ssthresh).div_ceil(self.recover_fs.into()).saturating_sub(self.out)
        } else {
            // PRR-CRB, and PRR-SSRB while that is safe.
            let mut sndcnt = self.delivered.saturating_sub(self.out).max(delivered.into());
            if is_safe {
                sndcnt += u64::from(mss);
            }
            sndcnt.min(ssthresh - u64::from(pipe))
        };
        // "force a fast retransmit upon entering recovery"
        let sndcnt = if self.out == 0 { sndcnt.max(mss.into()) } else { sndcnt };
        self.window = pipe.saturating_add(u32::try_from(sndcnt).unwrap_or(u32::MAX));
    }

    /// `bytes` were sent, new or again.
    pub(crate) fn on_sent(&mut self, bytes: u32) {
        self.out += u64::from(bytes);
    }

    /// cwnd.
    pub(crate) fn window(&self) -> u32 {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 segments of 1000 in flight, the first lost, ssthresh 10: RFC 6937 §4's first example. Every other
    /// acknowledgment lets a segment out.
    #[test]
    fn half_of_what_arrives_goes_out_while_the_pipe_is_above_ssthresh() {
        let mut prr = Prr::begin(20_000, 2000, 0);
        let (mut pipe, mut sent) = (17_000u32, 0);
        for n in 0..18 {
            if n > 0 {
                pipe -= 1000;
            }
            prr.on_ack(1000, pipe, 10_000, 1000, false);
            while prr.window() >= pipe + 1000 {
                prr.on_sent(1000);
                (pipe, sent) = (pipe + 1000, sent + 1);
            }
        }
        assert!((9..=11).contains(&sent), "{sent} segments for 18 that arrived");
        assert!((9_000..=11_000).contains(&pipe), "{pipe} in flight at the end");
    }

    #[test]
    fn the_first_acknowledgment_lets_a_segment_out_whatever_the_window() {
        let mut prr = Prr::begin(20_000, 3000, 0);
        prr.on_ack(0, 17_000, 2000, 1000, false);
        assert_eq!(prr.window(), 18_000);
    }

    #[test]
    fn below_ssthresh_the_window_grows_by_what_arrived_and_a_segment_when_that_is_safe() {
        let mut prr = Prr::begin(20_000, 3000, 0);
        prr.on_ack(1000, 3000, 10_000, 1000, false);
        assert_eq!(prr.window(), 4000);
        prr.on_sent(1000);
        prr.on_ack(1000, 3000, 10_000, 1000, true);
        assert_eq!(prr.window(), 5000);
        // Never above ssthresh.
        prr.on_ack(9000, 9500, 10_000, 1000, true);
        assert_eq!(prr.window(), 10_000);
    }
}
