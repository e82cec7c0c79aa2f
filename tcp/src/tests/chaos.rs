//! A peer that says anything, an app that does anything: nothing panics, every invariant holds, and in the end nothing
//! is left.

use alloc::string::ToString;
use alloc::vec::Vec;

use hoststack_transport::Duration;
use hoststack_wire::{
    FastOpenCookie, Flags, NotedSegment, Options, SackBlocks, SeqNum, Timestamps, parse_notation,
};
use proptest::prelude::*;

use crate::config::SynCookies;
use crate::seed::IcmpError;
use crate::state::State;
use crate::testing::Exchange;
use crate::tests::fast_open::COOKIE;

#[derive(Clone, Debug)]
enum Act {
    /// A segment near the windows: flags, seq - RCV.NXT, ack - SND.UNA, payload, window, SACK blocks - SND.UNA.
    Segment(u16, i32, i32, u16, u16, Vec<(i32, u32)>, Option<(i32, i32)>),
    Write(u16),
    Read,
    Close,
    HalfClose,
    Reset,
    Wait(u32),
    Icmp(i32, u16),
    Room(usize),
    Memory(bool),
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![6 => Just(0), 3 => -3..4i32, 3 => -3000..3000i32, 1 => -200_000..200_000i32, 1 => any::<i32>()]
}

fn act() -> impl Strategy<Value = Act> {
    let flags = prop_oneof![
        8 => Just(0x10u16), 4 => Just(0x18u16), 3 => Just(0x11u16), 1 => Just(0x12u16), 1 => Just(0x02u16),
        1 => Just(0x04u16), 1 => Just(0x14u16), 1 => 0u16..0x40
    ];
    let sack = prop::collection::vec((near(), 0u32..5000), 0..4);
    let stamps = prop::option::of((near(), near()));
    let segment = (flags, near(), near(), prop_oneof![Just(0u16), 0u16..3000], any::<u16>(), sack, stamps)
        .prop_map(|(flags, seq, ack, len, wnd, sack, stamps)| {
            Act::Segment(flags, seq, ack, len, wnd, sack, stamps)
        });
    prop_oneof![
        12 => segment,
        3 => (0u16..20_000).prop_map(Act::Write),
        2 => Just(Act::Read),
        1 => Just(Act::Close),
        1 => Just(Act::HalfClose),
        1 => prop::bool::weighted(0.1).prop_map(|reset| if reset { Act::Reset } else { Act::Read }),
        3 => (0u32..3000).prop_map(Act::Wait),
        1 => (near(), any::<u16>()).prop_map(|(seq, mtu)| Act::Icmp(seq, mtu)),
        1 => (0usize..5).prop_map(Act::Room),
        1 => any::<bool>().prop_map(Act::Memory),
    ]
}

/// Which state, and what was agreed on.
#[derive(Clone, Copy, Debug)]
struct Fixture {
    which: usize,
    sack: bool,
    timestamps: bool,
    scale: bool,
    wraps: bool,
    /// Fast Open on our side; the peer's SYNs have a good cookie.
    fast_open: bool,
    syn_cookies: SynCookies,
}

fn fixture() -> impl Strategy<Value = Fixture> {
    let modes = [SynCookies::Never, SynCookies::UnderPressure, SynCookies::Always];
    (0usize..14, any::<[bool; 5]>(), prop::sample::select(modes.to_vec())).prop_map(
        |(which, [sack, timestamps, scale, wraps, fast_open], syn_cookies)| Fixture {
            which,
            sack,
            timestamps,
            scale,
            wraps,
            // The last two are of nothing else.
            fast_open: fast_open || which >= 12,
            syn_cookies: if which >= 3 { SynCookies::UnderPressure } else { syn_cookies },
        },
    )
}

fn make(fixture: Fixture) -> Exchange {
    let Fixture { which, sack, timestamps, scale, wraps, fast_open, syn_cookies } = fixture;
    let states: [fn() -> Exchange; 14] = [
        Exchange::closed,
        Exchange::listen,
        Exchange::syn_sent,
        Exchange::syn_received,
        Exchange::crossed_syns,
        Exchange::established,
        Exchange::connected,
        Exchange::fin_wait_1,
        Exchange::fin_wait_2,
        Exchange::close_wait,
        Exchange::closing,
        Exchange::last_ack,
        Exchange::listen,
        Exchange::closed,
    ];
    let mut x = states[which]().config(|config| {
        config.retransmits_max = 4;
        config.fast_open_key = Some([1; 16].into());
        config.syn_cookies = syn_cookies;
    });
    if fast_open {
        x = x.options(|options| options.fast_open = true);
    }
    if sack {
        x = x.sack();
    }
    if timestamps {
        x = x.timestamps();
    }
    if scale {
        x = x.scale(3).options(|options| options.rx_window = 200_000);
    }
    if wraps {
        x = x.isns(u32::MAX - 500, u32::MAX - 400);
    }
    if which == 12 {
        // The app has the connection before its handshake is complete.
        x.gets([alloc::format!("S 0:100(100) win 5000 <mss 1000,FO {COOKIE}>").as_str()]).takes_iss();
    } else if which == 13 {
        // A SYN with data.
        x.half_opens.remember(&x.flow(), FastOpenCookie::new(&[1, 2, 3, 4]).expect("a cookie"), 1000);
        x.app_connects_with(Duration::from_secs(30), 500).takes_iss();
    }
    x
}

/// The variables to aim at, relative: SND.UNA, RCV.NXT.
fn aim(x: &Exchange) -> (u32, u32) {
    let Some(id) = x.engine.connection_of(&x.flow()) else { return (1, 1) };
    let info = x.engine.connection(x.now, id).expect("it was found just now");
    (info.snd_una.since(info.iss), info.rcv_nxt.since(info.irs))
}

fn apply(x: &mut Exchange, act: &Act) {
    let (una, nxt) = aim(x);
    let has_session = x.layer.newest().is_some();
    match *act {
        Act::Segment(flags, seq, ack, len, wnd, ref sack, stamps) => {
            let mut blocks = SackBlocks::NONE;
            for &(start, len) in sack {
                let start = SeqNum(una.wrapping_add_signed(start));
                blocks.push(start, start + len);
            }
            let flags = Flags(flags);
            let seq = nxt.wrapping_add_signed(seq);
            let cookie =
                parse_notation(&alloc::format!("S <FO {COOKIE}>")).expect("a segment").options.fast_open;
            let noted = NotedSegment {
                flags,
                seq,
                end: seq.wrapping_add(len.into()),
                ack: flags.has(Flags::ACK).then(|| una.wrapping_add_signed(ack)),
                win: Some(wnd),
                urgent: 0,
                options: Options {
                    fast_open: cookie.filter(|_| flags.has(Flags::SYN)),
                    sack: blocks,
                    timestamps: stamps.map(|(val, ecr)| Timestamps {
                        val: 1000u32.wrapping_add_signed(val),
                        ecr: (x.now.as_millis() as u32).wrapping_add_signed(ecr),
                    }),
                    ..Options::default()
                },
            };
            x.gets([noted.to_string().as_str()]);
        }
        Act::Write(count) if has_session && x.engine.connection_of(&x.flow()).is_some() => {
            let info = x.info();
            if !info.fin_wanted {
                x.app_writes(count.into());
            }
        }
        Act::Read if has_session => {
            let session = x.layer.newest().expect("a session");
            let unread = x.layer.get(session).map_or(0, |session| session.received - session.read);
            x.app_reads(unread as usize);
        }
        Act::Close => {
            x.app_closes();
        }
        Act::HalfClose => {
            x.app_half_closes();
        }
        Act::Reset => {
            x.app_resets();
        }
        Act::Wait(ms) => {
            x.after(ms.into());
        }
        Act::Icmp(seq, mtu) => {
            x.gets_icmp(una.wrapping_add_signed(seq), IcmpError::PacketTooBig { mtu });
        }
        Act::Room(room) => x.out.room = room * 3,
        Act::Memory(is_full) => x.layer.is_full = is_full,
        Act::Write(_) | Act::Read => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_and_nothing_is_left(fixture in fixture(), acts in prop::collection::vec(act(), 0..60)) {
        let mut x = make(fixture);
        for act in &acts {
            apply(&mut x, act);
        }
        // The peer falls silent; the app lets go of everything.
        x.out.room = usize::MAX;
        x.layer.is_full = false;
        x.app_resets().app_unlistens().after(10_000_000);
        prop_assert_eq!(x.state(), State::Closed);
        let counts = x.counts();
        prop_assert_eq!((counts.flows, x.engine.armed_timers()), (0, 0));
        prop_assert!(x.half_opens.is_empty());
    }

    #[test]
    fn a_silent_peer_does_not_keep_a_connection_that_has_something_to_say(
        fixture in fixture(),
        acts in prop::collection::vec(act(), 0..40),
    ) {
        let mut x = make(fixture);
        for act in &acts {
            apply(&mut x, act);
        }
        x.out.room = usize::MAX;
        x.layer.is_full = false;
        x.app_unlistens();
        if x.engine.connection_of(&x.flow()).is_some() && x.state() != State::SynReceived {
            x.app_closes().after(10_000_000);
        } else {
            x.after(10_000_000);
        }
        prop_assert_eq!(x.state(), State::Closed);
        prop_assert_eq!((x.counts().flows, x.engine.armed_timers()), (0, 0));
    }
}
