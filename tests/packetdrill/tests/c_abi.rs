//! packetdrill's part, played in Rust over the C table: connections from both sides, data, ends, errors.

mod c_side;

use c_side::{LISTEN_PORT, PEER_PORT, Script};
use libc::{EAGAIN, ECONNREFUSED, ECONNRESET, EINPROGRESS, POLLERR, POLLHUP, POLLIN, POLLOUT, SOCK_NONBLOCK};

const SECOND: i64 = 1_000_000;

#[test]
fn passive_open_is_accepted_with_the_peers_address() {
    for mut script in [Script::new(), Script::v6()] {
        let mss = if script.is_v6 { 1440 } else { 1460 };
        let listener = script.listener(SOCK_NONBLOCK);
        assert_eq!(script.accept(listener), Err(EAGAIN));
        script.gets("S 0:0(0) win 65535 <mss 1000,sackOK,nop,nop,nop,wscale 7>");
        script.sends(&format!("S. 0:0(0) ack 1 win 65535 <mss {mss},nop,nop,sackOK,nop,wscale 0>"));
        assert_eq!(script.accept(listener), Err(EAGAIN), "not yet: the handshake is not done");
        script.gets(". 1:1(0) ack 1 win 512");
        let fd = script.accept(listener).unwrap();
        assert_ne!(fd, i64::from(listener));
        script.end();
    }
}

#[test]
fn active_open_blocks_until_the_handshake_is_done() {
    for mut script in [Script::new(), Script::v6()] {
        let fd = script.socket(0);
        let (connected, woken, sent) = script.blocked(
            |script| script.0.connect(fd, PEER_PORT),
            |script| {
                script.sends("S 0:0(0)");
                script.sleep_ms(100);
                let sent = script.now();
                script.gets("S. 0:0(0) ack 1 win 65535 <mss 1000>");
                script.sends(". 1:1(0) ack 1");
                script.sleep_ms(100);
                sent
            },
        );
        assert_eq!(connected, Ok(0));
        assert_eq!(woken, sent, "its end is when the SYN-ACK came, not when its thread looks at the clock");
        assert_eq!(script.connect(fd, PEER_PORT), Err(libc::EISCONN));
        script.end();
    }
}

#[test]
fn a_syn_is_sent_again_after_a_second_and_then_after_two() {
    let mut script = Script::new();
    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.connect(fd, PEER_PORT), Err(EINPROGRESS));
    let first = script.sends("S 0:0(0)");
    assert_eq!(script.sends("S 0:0(0)") - first, SECOND);
    assert_eq!(script.sends("S 0:0(0)") - first, 3 * SECOND);
    assert_eq!(script.connect(fd, PEER_PORT), Err(libc::EALREADY));
    script.end();
}

#[test]
fn a_connect_that_does_not_block_is_polled() {
    let mut script = Script::new();
    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.connect(fd, PEER_PORT), Err(EINPROGRESS));
    assert_eq!(script.poll(fd, POLLOUT, 0), (Ok(0), 0));
    script.sends("S 0:0(0)");
    let (polled, ..) = script.blocked(
        |script| {
            let (polled, revents) = script.0.poll(fd, POLLOUT, 5000);
            assert_eq!(revents, POLLOUT);
            polled
        },
        |script| script.gets("S. 0:0(0) ack 1 win 65535 <mss 1000>"),
    );
    assert_eq!(polled, Ok(1));
    script.sends(". 1:1(0) ack 1");
    assert_eq!(script.option(fd, libc::SOL_SOCKET, libc::SO_ERROR), Ok(0));
    assert_eq!(script.connect(fd, PEER_PORT), Ok(0), "the second call is told that the first succeeded");
    assert_eq!(script.connect(fd, PEER_PORT), Err(libc::EISCONN));
    script.end();
}

#[test]
fn a_poll_that_finds_nothing_ends_at_its_timeout() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    let start = script.now();
    let (polled, woken, ()) = script.blocked(
        |script| {
            let (polled, revents) = script.0.poll(fd, POLLIN, 250);
            assert_eq!(revents, 0);
            polled
        },
        |script| script.sleep_ms(400),
    );
    assert_eq!((polled, woken - start), (Ok(0), SECOND / 4));
    script.end();
}

#[test]
fn a_refused_connect_says_so_once() {
    let mut script = Script::new();
    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.connect(fd, PEER_PORT), Err(EINPROGRESS));
    script.sends("S 0:0(0)");
    script.gets("R. 0:0(0) ack 1");
    let (polled, revents) = script.poll(fd, POLLIN | POLLOUT, 0);
    assert_eq!((polled, revents), (Ok(1), POLLIN | POLLOUT | POLLERR | POLLHUP));
    assert_eq!(script.option(fd, libc::SOL_SOCKET, libc::SO_ERROR), Ok(ECONNREFUSED.into()));
    assert_eq!(script.option(fd, libc::SOL_SOCKET, libc::SO_ERROR), Ok(0));
    let blocking = script.socket(0);
    let (refused, ..) = script.blocked(
        |script| script.0.connect(blocking, PEER_PORT),
        |script| {
            script.sends("S 0:0(0)");
            script.gets("R. 0:0(0) ack 1");
        },
    );
    assert_eq!(refused, Err(ECONNREFUSED));
    script.end();
}

#[test]
fn data_flows_both_ways() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.write(fd, 2500), Ok(2500));
    script.sends("1:1001(1000) ack 1");
    script.sends("1001:2001(1000) ack 1");
    script.gets(". 1:1(0) ack 2001 win 65535");
    script.sends("P. 2001:2501(500) ack 1");
    script.gets("P. 1:701(700) ack 2501 win 65535");
    script.sends(". 2501:2501(0) ack 701");
    assert_eq!(script.poll(fd, POLLIN, 0), (Ok(1), POLLIN));
    assert_eq!(script.read(fd, 200), Ok(200));
    assert_eq!(script.read(fd, 1000), Ok(500));
    assert_eq!(script.fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK.into()), Ok(0));
    assert_eq!(script.read(fd, 1000), Err(EAGAIN));
    script.end();
}

#[test]
fn a_packet_far_above_the_mtu_is_taken() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    script.gets("P. 1:54001(54000) ack 1 win 65535");
    script.sends(". 1:1(0) ack 54001");
    assert_eq!(script.read(fd, 60_000), Ok(54_000));
    script.end();
}

#[test]
fn blocked_accept_and_read_are_completed_by_proxy() {
    let mut script = Script::new();
    let listener = script.listener(0);
    let (accepted, woken, acked) = script.blocked(
        |script| script.0.accept(listener),
        |script| {
            script.gets("S 0:0(0) win 65535 <mss 1000>");
            script.sends("S. 0:0(0) ack 1");
            script.sleep_ms(50);
            let acked = script.now();
            script.gets(". 1:1(0) ack 1 win 65535");
            // The clock runs ahead of the sleeper, which may not even have been scheduled.
            script.sleep_ms(500);
            acked
        },
    );
    let fd = accepted.unwrap() as i32;
    assert_eq!(woken, acked);
    assert!(script.now() > acked + SECOND / 2, "only the first answer is the end of the call");
    let (read, woken, sent) = script.blocked(
        |script| script.0.read(fd, 1000),
        |script| {
            script.sleep_ms(100);
            let sent = script.now();
            script.gets("P. 1:301(300) ack 1 win 65535");
            script.sleep_ms(100);
            sent
        },
    );
    assert_eq!((read, woken), (Ok(300), sent));
    script.end();
}

#[test]
fn a_blocked_write_is_completed_as_room_appears() {
    let mut script = Script::with("profile=freebsd,rcvbuf=65535,sndbuf=3000");
    let (fd, _) = script.established();
    let (written, woken, done) = script.blocked(
        |script| script.0.write(fd, 5000),
        |script| {
            let mut done = 0;
            for number in 0..5 {
                // Which of them carry PSH depends on how room appears: only the length is compared.
                let (packet, _) = script.receive().expect("a segment of the write");
                assert_eq!(packet.len(), 1040);
                script.sleep_ms(10);
                if number < 3 {
                    done = script.now();
                }
                script.gets(&format!(". 1:1(0) ack {} win 65535", (number + 1) * 1000 + 1));
            }
            done
        },
    );
    assert_eq!(written, Ok(5000));
    assert!(woken <= done, "all was taken when three thousand bytes were acknowledged");
    script.end();
}

#[test]
fn the_peer_closes_first() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    script.gets("F. 1:1(0) ack 1 win 65535");
    script.sends(". 1:1(0) ack 2");
    assert_eq!(script.read(fd, 100), Ok(0));
    assert_eq!(script.poll(fd, POLLIN, 0), (Ok(1), POLLIN));
    assert_eq!(script.write(fd, 100), Ok(100));
    script.sends("P. 1:101(100) ack 2");
    assert_eq!(script.close(fd), Ok(0));
    script.sends("F. 101:101(0) ack 2");
    script.gets(". 2:2(0) ack 102 win 65535");
    assert_eq!(script.read(fd, 100), Err(libc::EBADF));
    script.end();
}

#[test]
fn we_close_first_and_time_wait_answers_a_repeated_fin() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.close(fd), Ok(0));
    script.sends("F. 1:1(0) ack 1");
    script.gets(". 1:1(0) ack 2 win 65535");
    script.gets("F. 1:1(0) ack 2 win 65535");
    script.sends(". 2:2(0) ack 2");
    script.sleep_ms(59_000);
    script.gets("F. 1:1(0) ack 2 win 65535");
    script.sends(". 2:2(0) ack 2");
    script.end();
}

#[test]
fn shutdown_ends_one_direction() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.shutdown(fd, libc::SHUT_WR), Ok(0));
    script.sends("F. 1:1(0) ack 1");
    assert_eq!(script.write(fd, 10), Err(libc::EPIPE));
    script.gets(". 1:1001(1000) ack 2 win 65535");
    script.sends(". 2:2(0) ack 1001");
    assert_eq!(script.read(fd, 1000), Ok(1000));
    script.gets("F. 1001:1001(0) ack 2 win 65535");
    script.sends(". 2:2(0) ack 1002");
    assert_eq!(script.read(fd, 1000), Ok(0));
    script.end();
}

#[test]
fn bytes_that_came_before_the_end_of_the_session_are_read_after_it() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.shutdown(fd, libc::SHUT_WR), Ok(0));
    script.sends("F. 1:1(0) ack 1");
    script.gets("FP. 1:501(500) ack 2 win 65535");
    script.sends(". 2:2(0) ack 502");
    script.sleep_ms(70_000);
    assert_eq!((script.read(fd, 300), script.read(fd, 300), script.read(fd, 300)), (Ok(300), Ok(200), Ok(0)));
    script.end();
}

#[test]
fn a_reset_by_the_peer_is_told_once_and_to_the_sleeper() {
    let mut script = Script::new();
    let (fd, listener) = script.established();
    let (read, ..) = script.blocked(|script| script.0.read(fd, 100), |script| script.gets("R. 1:1(0) ack 1"));
    assert_eq!(read, Err(ECONNRESET));
    assert_eq!(script.read(fd, 100), Ok(0));
    assert_eq!(script.write(fd, 100), Err(libc::EPIPE));

    script.next_peer();
    script.gets("S 0:0(0) win 65535 <mss 1000>");
    script.sends("S. 0:0(0) ack 1");
    script.gets("P. 1:101(100) ack 1 win 65535");
    script.gets("R. 101:101(0) ack 1");
    let fd = script.accept(listener).unwrap() as i32;
    assert_eq!((script.read(fd, 100), script.read(fd, 100)), (Ok(100), Err(ECONNRESET)));
    script.end();
}

#[test]
fn linger_zero_and_unread_bytes_reset() {
    let mut script = Script::new();
    let (fd, listener) = script.established();
    assert_eq!(script.set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &[1, 0]), Ok(0));
    assert_eq!(script.close(fd), Ok(0));
    script.sends("R. 1:1(0) ack 1");

    script.next_peer();
    script.gets("S 0:0(0) win 65535 <mss 1000>");
    script.sends("S. 0:0(0) ack 1");
    script.gets("P. 1:101(100) ack 1 win 65535");
    script.sends(". 1:1(0) ack 101");
    let fd = script.accept(listener).unwrap() as i32;
    assert_eq!(script.close(fd), Ok(0));
    script.sends("R. 1:1(0) ack 101");
    script.end();
}

#[test]
fn a_segment_that_is_not_acknowledged_is_sent_again() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.write(fd, 1000), Ok(1000));
    let first = script.sends("P. 1:1001(1000) ack 1");
    let second = script.sends("P. 1:1001(1000) ack 1");
    let third = script.sends("P. 1:1001(1000) ack 1");
    // The handshake took no time at all: the least timeout, then twice that.
    assert_eq!((second - first, third - second), (SECOND / 5, 2 * SECOND / 5));
    script.end();
}

#[test]
fn a_full_window_opens_when_the_script_reads() {
    let mut script = Script::with("rcvbuf=4000");
    let (fd, _) = script.established();
    script.gets("P. 1:4001(4000) ack 1 win 65535");
    script.sends(". 1:1(0) ack 4001 win 0");
    assert_eq!(script.read(fd, 4000), Ok(4000));
    script.sends(". 1:1(0) ack 4001 win 4000");
    script.end();
}

#[test]
fn the_clock_moves_on_by_a_microsecond_a_question_and_runs_timers_in_sleep() {
    let mut script = Script::new();
    let start = script.now();
    assert_eq!((script.now(), script.now()), (start + 1, start + 2));
    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.connect(fd, PEER_PORT), Err(EINPROGRESS));
    assert_eq!(script.now(), start + 3, "no other call takes time");
    script.sleep_ms(3500);
    assert_eq!(script.now(), start + 3 + 3_500_000 + 1);
    // Each with the time at which it was sent, which is long ago.
    let times = [(); 3].map(|()| script.sends("S 0:0(0)") - start);
    assert_eq!(times, [2, 2 + SECOND, 2 + 3 * SECOND]);
    script.end();
}

#[test]
fn receiving_gives_up_when_nothing_can_come() {
    let script = Script::with("cap=64");
    let start = script.now();
    assert_eq!(script.receive(), None);
    assert!(script.now() - start <= 65 * SECOND);
    script.end();
}

#[test]
fn receiving_gives_up_at_the_cap() {
    let mut script = Script::with("cap=2");
    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.connect(fd, PEER_PORT), Err(EINPROGRESS));
    script.sends("S 0:0(0)");
    script.sends("S 0:0(0)");
    script.sends("S 0:0(0)");
    // The next one is due in four seconds.
    let before = script.now();
    assert_eq!(script.receive(), None);
    assert!(script.now() - before <= 2 * SECOND + 1);
    script.end();
}

#[test]
fn a_second_listener_of_a_port_is_refused() {
    let script = Script::new();
    let listener = script.listener(0);
    let second = script.socket(0);
    assert_eq!(script.bind(second, LISTEN_PORT), Err(libc::EADDRINUSE));
    assert_eq!(script.close(listener), Ok(0));
    assert_eq!((script.bind(second, LISTEN_PORT), script.listen(second)), (Ok(0), Ok(0)));
    script.end();
}

#[test]
fn what_the_stack_does_not_have_is_refused() {
    let script = Script::new();
    let fd = script.socket(0);
    assert_eq!(script.option(fd, libc::IPPROTO_TCP, libc::TCP_REPAIR), Err(libc::ENOPROTOOPT));
    assert_eq!(script.set_option(fd, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &[1]), Err(libc::ENOPROTOOPT));
    assert_eq!(script.set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &[5000]), Ok(0));
    assert_eq!(script.option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF), Ok(10_000));
    assert_eq!(script.option(-1, libc::SOL_SOCKET, libc::SO_ERROR), Err(libc::EBADF));
    script.end();
}

#[test]
fn the_profile_decides_the_window_scale() {
    for (flags, scale) in [("profile=linux", 8), ("profile=freebsd", 6)] {
        let mut script = Script::with(flags);
        script.listener(0);
        script.gets("S 0:0(0) win 65535 <mss 1000,nop,wscale 0>");
        script.sends(&format!("S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale {scale}>"));
        script.end();
    }
}

#[test]
fn a_send_buffer_that_shrinks_lets_less_through() {
    let mut script = Script::with("profile=freebsd,rcvbuf=65535");
    let (fd, _) = script.established();
    assert_eq!(script.set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &[5000]), Ok(0));
    assert_eq!(script.option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF), Ok(5000));
    assert_eq!(script.fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK.into()), Ok(0));
    assert_eq!((script.write(fd, 9000), script.write(fd, 1)), (Ok(5000), Err(EAGAIN)));
    assert_eq!(script.poll(fd, POLLOUT, 0), (Ok(0), 0));
    for number in 0..5 {
        let (packet, _) = script.receive().expect("a segment of the write");
        assert_eq!(packet.len(), 1040, "{number}");
    }
    script.gets(". 1:1(0) ack 3001 win 65535");
    assert_eq!(script.poll(fd, POLLOUT, 0), (Ok(1), POLLOUT));
    assert_eq!(script.write(fd, 9000), Ok(3000));
    script.end();
}

#[test]
fn linuxs_send_buffer_takes_whole_groups_of_segments() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &[2500]), Ok(0));
    assert_eq!(script.option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF), Ok(5000), "doubled");
    assert_eq!(script.fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK.into()), Ok(0));
    assert_eq!((script.write(fd, 9000), script.write(fd, 1)), (Ok(9000), Err(EAGAIN)));
    assert_eq!(script.poll(fd, POLLOUT, 0), (Ok(0), 0));
    script.end();
}

#[test]
fn push_is_where_linux_has_it_or_where_the_stack_has_it() {
    for (flags, marks) in [("psh=buffers", "....P....P"), ("psh=exact", "..........")] {
        let mut script = Script::with(&format!("rcvbuf=65535,{flags}"));
        let (fd, _) = script.established();
        assert_eq!(script.write(fd, 30_000), Ok(30_000));
        for (number, mark) in marks.chars().enumerate() {
            let start = number * 1000 + 1;
            let flags = if mark == 'P' { "P." } else { "." };
            script.sends(&format!("{flags} {start}:{}(1000) ack 1", start + 1000));
        }
        script.end();
    }
}

#[test]
fn options_of_tcp_are_kept_and_told() {
    let mut script = Script::new();
    let fd = script.socket(0);
    let tcp = libc::IPPROTO_TCP;
    for (name, value) in [
        (libc::TCP_NODELAY, 1),
        (libc::TCP_CORK, 1),
        (libc::TCP_KEEPIDLE, 5),
        (libc::TCP_KEEPINTVL, 6),
        (libc::TCP_KEEPCNT, 3),
        (libc::TCP_USER_TIMEOUT, 3000),
        (libc::TCP_SYNCNT, 2),
        (libc::TCP_MAXSEG, 1100),
        (libc::TCP_NOTSENT_LOWAT, 4000),
        (libc::TCP_FASTOPEN, 5),
    ] {
        assert_eq!(script.set_option(fd, tcp, name, &[value]), Ok(0), "option {name}");
        assert_eq!(script.option(fd, tcp, name), Ok(value.into()), "option {name}");
    }
    assert_eq!(script.set_option(fd, tcp, libc::TCP_MAXSEG, &[12]), Err(libc::EINVAL));
    let bbr = [i32::from_ne_bytes(*b"bbr\0")];
    assert_eq!(script.set_option(fd, tcp, libc::TCP_CONGESTION, &bbr), Ok(0));
    let plan9 = [i32::from_ne_bytes(*b"plan")];
    assert_eq!(script.set_option(fd, tcp, libc::TCP_CONGESTION, &plan9), Err(libc::ENOENT));
    assert_eq!(
        script.option_bytes(fd, tcp, libc::TCP_CONGESTION, 16),
        Ok(b"bbr\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec())
    );
    let info = script.option_bytes(fd, tcp, libc::TCP_INFO, 280).unwrap();
    assert_eq!((info.len(), info[0]), (280, 7), "closed");
    // SYNs are repeated twice, and name the MSS.
    assert_eq!(script.connect_async(fd), Err(EINPROGRESS));
    for _ in 0..3 {
        script.sends("S 0:0(0)");
    }
    assert_eq!(script.receive(), None);
    script.end();
}

#[test]
fn a_corked_rest_waits_and_nodelay_pushes_past_the_cork() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.set_option(fd, libc::IPPROTO_TCP, libc::TCP_CORK, &[1]), Ok(0));
    assert_eq!(script.write(fd, 1500), Ok(1500));
    let start = script.sends(". 1:1001(1000) ack 1");
    assert_eq!(script.set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &[1]), Ok(0));
    assert_eq!(script.sends("P. 1001:1501(500) ack 1"), start);
    script.gets(". 1:1(0) ack 1501 win 65535");
    assert_eq!(script.write(fd, 100), Ok(100));
    script.sleep_ms(10);
    assert_eq!(script.set_option(fd, libc::IPPROTO_TCP, libc::TCP_CORK, &[0]), Ok(0));
    assert_eq!(script.sends("P. 1501:1601(100) ack 1"), start + 10_000, "the cork held it until then");
    script.end();
}

#[test]
fn a_zero_copy_write_is_told_of_when_it_is_acknowledged() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.set_option(fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &[1]), Ok(0));
    assert_eq!(script.send_flags(fd, 500, libc::MSG_ZEROCOPY), Ok(500));
    script.sends("P. 1:501(500) ack 1");
    assert_eq!(script.error_queue(fd), Err(EAGAIN));
    script.gets(". 1:1(0) ack 501 win 65535");
    assert_eq!(script.poll(fd, 0, 0), (Ok(1), POLLERR));
    // Header, then errno 0, origin 5 (zero copy), type 0, code 1 (copied), first and last number 0, no address.
    let (control, flags) = script.error_queue(fd).unwrap();
    let mut wanted = vec![48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0];
    wanted.resize(48, 0);
    assert_eq!((control, flags), (wanted, libc::MSG_ERRQUEUE));
    assert_eq!((script.error_queue(fd), script.poll(fd, 0, 0)), (Err(EAGAIN), (Ok(0), 0)));
    script.end();
}

#[test]
fn a_write_opens_a_connection_and_goes_with_the_syn_when_there_is_a_cookie() {
    let mut script = Script::new();
    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.send_open(fd, 500, libc::MSG_FASTOPEN), Err(EINPROGRESS));
    script.sends("S 0:0(0)");
    script.gets("S. 0:0(0) ack 1 win 65535 <mss 1000,FO 0102030405060708,nop,nop>");
    script.sends(". 1:1(0) ack 1");
    assert_eq!(script.close(fd), Ok(0));
    script.sends("F. 1:1(0) ack 1");
    script.gets("R. 1:1(0) ack 2");

    let fd = script.socket(SOCK_NONBLOCK);
    assert_eq!(script.send_open(fd, 2000, libc::MSG_FASTOPEN), Ok(960), "a segment, less room for options");
    script.sends("S 0:960(960)");
    script.gets("S. 0:0(0) ack 961 win 65535 <mss 1000>");
    script.sends(". 961:961(0) ack 1");
    assert_eq!(script.write(fd, 100), Ok(100));
    script.sends("P. 961:1061(100) ack 1");
    script.end();
}

#[test]
fn a_call_of_the_script_that_nothing_ends_is_interrupted_at_the_cap() {
    let script = Script::with("cap=5");
    let listener = script.listener(0);
    let start = script.now();
    assert_eq!(script.accept(listener), Err(libc::EINTR));
    assert!(script.now() - start <= 5 * SECOND + 2);
    script.end();
}

#[test]
fn addresses_are_those_that_the_script_uses() {
    let mut script = Script::with("local=10.9.8.7,rcvbuf=65535");
    let (fd, _) = script.established();
    assert_eq!(script.write(fd, 10), Ok(10));
    script.sends("P. 1:11(10) ack 1");
    script.end();
}

#[test]
fn a_window_that_cannot_grow_is_not_updated() {
    let mut script = Script::with("rcvbuf=1000000");
    let (fd, _) = script.established();
    script.gets("P. 1:1001(1000) ack 1 win 65535");
    script.sends(". 1:1(0) ack 1001 win 65535");
    script.sleep_ms(1000);
    assert_eq!(script.read(fd, 1000), Ok(1000));
    assert_eq!(script.receive(), None, "the peer, which does not scale windows, knows of 65535 already");
    script.end();
}

#[test]
fn nothing_joins_a_record_that_was_ended() {
    for (flags, segments) in [
        (libc::MSG_EOR, &["P. 501:801(300) ack 1", "P. 801:1101(300) ack 1"][..]),
        (0, &["P. 501:1101(600) ack 1"]),
    ] {
        let mut script = Script::new();
        let (fd, _) = script.established();
        assert_eq!(script.write(fd, 500), Ok(500));
        script.sends("P. 1:501(500) ack 1");
        // Nagle holds the first, and the end of its record lets it go when there is more.
        assert_eq!(script.send_flags(fd, 300, flags), Ok(300));
        assert_eq!(script.send_flags(fd, 300, flags), Ok(300));
        script.gets(". 1:1(0) ack 501 win 65535");
        for segment in segments {
            script.sends(segment);
            let end = &segment[3..].split([':', '(']).nth(1).unwrap();
            script.gets(&format!(". 1:1(0) ack {end} win 65535"));
        }
        script.end();
    }
}

#[test]
fn bytes_left_unread_reset_in_linux_and_are_thrown_away_in_freebsd() {
    for (flags, answer) in [("profile=linux", "R. 1:1(0) ack 101"), ("profile=freebsd", "F. 1:1(0) ack 101")]
    {
        let mut script = Script::with(&format!("{flags},rcvbuf=65535"));
        let (fd, _) = script.established();
        script.gets("P. 1:101(100) ack 1 win 65535");
        script.sends(". 1:1(0) ack 101");
        assert_eq!(script.close(fd), Ok(0));
        script.sends(answer);
        script.end();
    }
}

#[test]
fn data_for_a_socket_that_was_closed_is_reset_where_the_peer_stands() {
    let mut script = Script::new();
    let (fd, _) = script.established();
    assert_eq!(script.close(fd), Ok(0));
    script.sends("F. 1:1(0) ack 1");
    script.gets("P. 1:101(100) ack 1 win 65535");
    script.sends("R 1:1(0)");
    script.end();
}
