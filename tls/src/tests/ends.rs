//! How streams end: as both want, cut short, corrupt; and that nothing is lost, told twice or kept waiting.

use hoststack_transport::{CloseReason, SessionLayer};

use super::*;

/// The app at `n` is told of the peer's end only when all of `total` bytes are where it can read them.
fn assert_end_is_not_early(pair: &Pair, n: usize, total: usize) {
    let end = &pair.ends[n];
    let there = end.got.len() + end.sessions.get(end.id).unwrap().rx_len();
    assert!(end.count(Told::PeerClosed) == 0 || there == total, "{there} of {total}");
}

#[test]
fn the_peers_end_is_told_after_its_bytes_though_the_transport_stays_open() {
    let (client, server) = plans(&options(&Issuer::new()));
    let fifos = SessionOptions { rx_capacity: 10_000, ..SessionOptions::default() };
    let mut pair = Pair::new(&client, &server, fifos);
    pair.ends[CLIENT].writes = pattern(50_000, 0);
    pair.ends[SERVER].reads = 1_000;
    pair.ends[CLIENT].half_closes = true;
    while pair.ends[SERVER].got.len() < 50_000 {
        pair.run();
        assert_end_is_not_early(&pair, SERVER, 50_000);
        assert!(pair.read(SERVER, 900) > 0);
    }
    pair.run();
    assert!(pair.ends[SERVER].got == pattern(50_000, 0));
    assert_eq!(pair.ends[SERVER].told.last(), Some(&Told::PeerClosed));
    // The other direction is open.
    pair.ends[SERVER].writes = pattern(1_000, 1);
    pair.ends[SERVER].half_closes = true;
    pair.run();
    assert!(pair.ends[CLIENT].got == pattern(1_000, 1));
    assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::Closed(CloseReason::Finished)));
    assert_closed(&pair);
}

#[test]
fn a_transport_that_ends_without_the_streams_end_is_a_truncation_and_never_the_peers_end() {
    let issuer = Issuer::new();
    for versions in VERSIONS {
        // At the end of a record, inside one, inside a header; read at once or late.
        for (cut_off, reads) in [(0, usize::MAX), (1, usize::MAX), (500, usize::MAX), (0, 0), (18, 100)] {
            let mut options = options(&issuer);
            options.0.versions = versions;
            let mut pair = connected(&options);
            pair.ends[SERVER].reads = reads;
            let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
            assert_eq!(sessions.write(id, &pattern(1_000, 0)), 1_000);
            pair.mtu = 1_000 + 22 + 7 - 500 - cut_off;
            assert!(pair.step());
            if cut_off == 0 {
                pair.run();
            }
            // The FIN overtakes what was not carried: the transport's fault, as an attacker's would be.
            let server = pair.ends[SERVER].id;
            pair.mtu = 0;
            pair.ends[SERVER]
                .sessions
                .on_event(&hoststack_transport::TransportEvent::PeerClosed { session: server });
            pair.run();
            let expected = if cut_off == 0 { 1_000 } else { 0 };
            while pair.ends[SERVER].got.len() < expected {
                assert_eq!(pair.ends[SERVER].count(Told::Reset), 0, "bytes first");
                assert!(pair.read(SERVER, 300) > 0);
                pair.run();
            }
            assert_eq!(pair.ends[SERVER].got.len(), expected);
            let told = &pair.ends[SERVER].told;
            assert_eq!(told[told.len() - 2..], [Told::Reset, Told::Closed(CloseReason::Truncated)]);
            assert_eq!(pair.ends[SERVER].count(Told::PeerClosed), 0);
            assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
            assert_closed(&pair);
        }
    }
}

#[test]
fn a_stream_that_both_transports_ended_well_but_the_peer_did_not_is_truncated_all_the_same() {
    let mut pair = connected(&options(&Issuer::new()));
    pair.ends[SERVER].reads = 0;
    pair.ends[CLIENT].writes = pattern(5_000, 0);
    pair.run();
    pair.half_close(SERVER);
    pair.run();
    assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::PeerClosed));
    pair.cut(CLIENT);
    pair.run();
    assert_eq!(pair.ends[SERVER].count(Told::Reset), 0, "its bytes are not read yet");
    assert_eq!(pair.read(SERVER, 5_000), 5_000);
    pair.run();
    let told = &pair.ends[SERVER].told;
    assert_eq!(told[told.len() - 2..], [Told::Reset, Told::Closed(CloseReason::Truncated)]);
    assert_eq!(pair.ends[SERVER].count(Told::PeerClosed), 0);
}

#[test]
fn a_record_that_does_not_decrypt_resets_and_the_peer_is_told_why() {
    let issuer = Issuer::new();
    for versions in VERSIONS {
        let mut options = options(&issuer);
        options.0.versions = versions;
        let mut pair = connected(&options);
        let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
        assert_eq!(sessions.write(id, b"good"), 4);
        pair.run();
        // Not in the header, whose change could be waited out.
        pair.flips[CLIENT] = Some(pair.ends[CLIENT].wire.len() + 20);
        let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
        assert_eq!(sessions.write(id, b"changed on the way"), 18);
        let carried = pair.ends[SERVER].wire.len();
        pair.run();
        assert_eq!(pair.ends[SERVER].got, b"good");
        let end = |n: usize| pair.ends[n].told[pair.ends[n].told.len() - 2..].to_vec();
        assert_eq!(end(SERVER), [Told::Reset, Told::Closed(CloseReason::Corrupt)]);
        assert!(pair.ends[SERVER].wire.len() > carried, "the alert went out");
        assert_eq!(end(CLIENT), [Told::Reset, Told::Closed(CloseReason::PeerReset)]);
        assert_closed(&pair);
    }
}

#[test]
fn a_record_that_does_not_decrypt_after_our_end_was_sent_resets_too() {
    let mut pair = connected(&options(&Issuer::new()));
    pair.half_close(CLIENT);
    pair.run();
    pair.flips[SERVER] = Some(pair.ends[SERVER].wire.len() + 20);
    let (id, sessions) = (pair.ends[SERVER].id, &mut pair.ends[SERVER].sessions);
    assert_eq!(sessions.write(id, b"changed on the way"), 18);
    pair.run();
    assert_eq!(pair.ends[CLIENT].told, [Told::Up, Told::Reset, Told::Closed(CloseReason::Corrupt)]);
    assert_eq!(pair.ends[SERVER].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
    assert_closed(&pair);
}

#[test]
fn close_sends_all_that_was_written_and_the_peers_answer_is_no_stray_data() {
    let issuer = Issuer::new();
    for versions in VERSIONS {
        for bytes in [0, 10, 60_000] {
            let mut options = options(&issuer);
            options.0.versions = versions;
            let mut pair = connected(&options);
            let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
            assert_eq!(sessions.write(id, &pattern(bytes, 0)), bytes);
            pair.ends[SERVER].closes = true;
            pair.close(CLIENT);
            pair.run();
            assert!(pair.ends[SERVER].got == pattern(bytes, 0));
            for n in [CLIENT, SERVER] {
                assert_eq!(pair.ends[n].told.last(), Some(&Told::Closed(CloseReason::Finished)));
                assert_eq!((pair.ends[n].stray, pair.ends[n].count(Told::Reset)), (0, 0));
            }
            assert_eq!(pair.ends[SERVER].count(Told::PeerClosed), 1);
            assert_eq!(pair.ends[CLIENT].count(Told::PeerClosed), 0, "an app that closed hears the end only");
            assert_closed(&pair);
        }
    }
}

#[test]
fn a_close_waits_for_a_peer_that_does_not_read_and_then_goes_on() {
    let (client, server) = plans(&options(&Issuer::new()));
    let fifos = SessionOptions { rx_capacity: 2_000, tx_capacity: 20_000, tx_capacity_max: 0 };
    let mut pair = Pair::new(&client, &server, fifos);
    pair.ends[SERVER].reads = 0;
    pair.run();
    let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
    let mut written = sessions.write(id, &pattern(20_000, 0));
    pair.run();
    let (id, sessions) = (pair.ends[CLIENT].id, &mut pair.ends[CLIENT].sessions);
    written += sessions.write(id, &pattern(30_000, 0)[written..]);
    pair.close(CLIENT);
    pair.run();
    assert!(written > 20_000 && pair.ends[CLIENT].is_live() && !pair.ends[CLIENT].sessions.has_due_endings());
    while pair.ends[SERVER].got.len() < written {
        assert_end_is_not_early(&pair, SERVER, written);
        assert!(pair.read(SERVER, 700) > 0, "it is stuck at {}", pair.ends[SERVER].got.len());
        pair.run();
    }
    assert!(pair.ends[SERVER].got == pattern(written, 0));
    assert_eq!(pair.ends[SERVER].told.last(), Some(&Told::PeerClosed));
    pair.close(SERVER);
    pair.run();
    assert_closed(&pair);
}

#[test]
fn data_for_an_app_that_closed_is_answered_with_a_reset() {
    let mut pair = connected(&options(&Issuer::new()));
    pair.close(CLIENT);
    let (id, sessions) = (pair.ends[SERVER].id, &mut pair.ends[SERVER].sessions);
    assert_eq!(sessions.write(id, b"still here"), 10);
    pair.run();
    assert_eq!(pair.ends[CLIENT].told.last(), Some(&Told::Closed(CloseReason::LocalReset)));
    assert_eq!(pair.ends[SERVER].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
    assert_closed(&pair);
}

#[test]
fn a_close_with_unread_bytes_resets() {
    let mut pair = connected(&options(&Issuer::new()));
    pair.ends[CLIENT].reads = 0;
    pair.ends[SERVER].writes = pattern(10, 1);
    pair.run();
    pair.close(CLIENT);
    pair.run();
    assert_eq!(pair.ends[SERVER].told.last(), Some(&Told::Closed(CloseReason::PeerReset)));
    assert_closed(&pair);
}

#[test]
fn a_peer_that_is_not_read_is_held_back() {
    let (client, server) = plans(&options(&Issuer::new()));
    let fifos = SessionOptions { rx_capacity: 10_000, tx_capacity: 10_000, tx_capacity_max: 0 };
    let mut pair = Pair::new(&client, &server, fifos);
    pair.ends[SERVER].reads = 0;
    pair.ends[CLIENT].writes = pattern(500_000, 0);
    pair.run();
    let carried = pair.ends[CLIENT].wire.len();
    // The app's fifo, the wire's, and a record between them; the handshake went before.
    assert!(carried < 10_000 + 10_000 + 17_000 + 3_000, "{carried} bytes");
    assert_eq!(pair.ends[SERVER].sessions.get(pair.ends[SERVER].id).unwrap().rx_len(), 10_000);
    assert_eq!(pair.ends[SERVER].sessions.rx_room(pair.ends[SERVER].id), 0, "its window is closed");
    pair.ends[CLIENT].half_closes = true;
    while pair.ends[SERVER].got.len() < 500_000 {
        assert!(pair.read(SERVER, 3_000) > 0);
        pair.run();
    }
    assert!(pair.ends[SERVER].got == pattern(500_000, 0));
    assert_eq!(pair.ends[SERVER].count(Told::PeerClosed), 1);
}

#[test]
fn an_alert_after_establishment_ends_the_session_and_is_named() {
    // In 1.3 the client is up before the server has judged its certificate.
    let (issuer, clients) = (Issuer::new(), Issuer::new());
    let mut options = options(&issuer);
    options.1.client_auth = ClientAuth::Required(clients.pem());
    let mut pair = pair_of(&options);
    pair.run();
    assert_eq!(pair.ends[SERVER].told, [failed(StageCause::Untrusted("it has no certificate"))]);
    assert_eq!(pair.ends[CLIENT].told, [Told::Up, Told::Reset, Told::Closed(CloseReason::PeerReset)]);
    assert_closed(&pair);
}
