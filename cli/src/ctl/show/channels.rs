//! `show channel`: what waits between threads.

use hoststack::inspect::ChannelInfo;

use crate::table::{Column, Table, grouped};

/// A line per channel. `!` marks one that is full: messages wait with their sender.
pub(crate) fn channels(channels: &[ChannelInfo]) -> String {
    let mut table = Table::new(&[
        Column::Left(""),
        Column::Left("channel"),
        Column::Left("from"),
        Column::Left("to"),
        Column::Right("sent"),
        Column::Right("waiting"),
        Column::Right("batches"),
        Column::Right("most"),
        Column::Right("outbox"),
        Column::Right("most"),
    ]);
    for channel in channels {
        table.row([
            if channel.outbox > 0 { "!" } else { "" }.to_owned(),
            channel.kind.to_owned(),
            channel.from.clone(),
            channel.to.clone(),
            grouped(channel.sent),
            grouped(channel.waiting),
            grouped(channel.batches as u64),
            grouped(channel.batches_max as u64),
            grouped(channel.outbox as u64),
            grouped(channel.outbox_max as u64),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_whose_sender_waits_is_marked() {
        let channel = |from: &str, to: &str, outbox| ChannelInfo {
            kind: "commands",
            from: from.into(),
            to: to.into(),
            sent: 12_345,
            handled: 12_340,
            waiting: 5,
            batches: 1,
            batches_max: 4,
            outbox,
            outbox_max: 70,
        };
        assert_eq!(
            channels(&[channel("main", "worker 0", 0), channel("main", "worker 1", 7)]),
            "   channel   from  to          sent  waiting  batches  most  outbox  most
   commands  main  worker 0  12 345        5        1     4       0    70
!  commands  main  worker 1  12 345        5        1     4       7    70\n"
        );
    }
}
