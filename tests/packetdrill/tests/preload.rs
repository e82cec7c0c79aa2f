//! The symbols of libc that the shared object replaces in packetdrill's process: linked into this one, they replace
//! them here. One test, because they answer for the stack that the process started last.

mod c_side;

use c_side::{LISTEN_PORT, Script, host_mlockall, host_option, host_system, host_times, host_wait};

#[test]
fn the_processs_own_calls_are_answered() {
    assert_eq!(host_mlockall(), 0);
    let ticks = host_times();
    assert_eq!((host_times(), host_times()), (ticks + 1, ticks + 2), "a tick for each call");
    assert_eq!(host_system("sysctl -q net.ipv4.no_such_setting=1"), 0, "nothing is set, nobody complains");

    let mut script = Script::new();
    assert_ne!(host_system("iptables -L"), 0, "what is not known is not answered");
    // Settings that are made before the first socket are the stack's from the start.
    assert_eq!(host_system("sysctl -q net.ipv4.tcp_sack=0; sysctl -n net.ipv4.tcp_sack | grep -q 0"), 0);
    let listener = script.listener(libc::SOCK_NONBLOCK);
    script.gets("S 0:0(0) win 65535 <mss 1000,sackOK,nop,nop>");
    script.sends("S. 0:0(0) ack 1 win 65535 <mss 1460>");
    script.gets("R. 1:1(0) ack 1");
    assert_eq!(script.close(listener), Ok(0));
    script.next_peer();
    let (fd, listener) = script.established();
    assert_eq!(host_system("ss -tin | grep -q 'ESTAB.*cwnd:10'"), 0);
    let asked = script.blocked(
        |script| script.0.poll(fd, libc::POLLIN, 250).0,
        |script| {
            let start = script.now();
            assert_eq!(host_wait(), libc::ETIMEDOUT);
            assert_eq!(script.now() - start, 250_000, "the clock ran to where the call was answered");
        },
    );
    assert_eq!(asked.0, Ok(0));
    assert_eq!(script.write(fd, 1000), Ok(1000));
    script.sends("P. 1:1001(1000) ack 1");
    let info = host_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, 232).unwrap();
    let at = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().unwrap());
    assert_eq!((info.len(), info[0]), (232, 1), "established");
    assert_eq!((at(16), at(24), at(80)), (1000, 1, 10), "MSS, segments in flight, initial window");
    assert_eq!(host_option(fd, libc::IPPROTO_TCP, libc::TCP_CC_INFO, 20), Ok(Vec::new()));
    assert_eq!(host_option(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, 36), Ok(vec![0; 36]));
    // The place holder is no socket of the host's.
    assert_eq!(host_option(fd, libc::SOL_SOCKET, libc::SO_TYPE, 4), Err(libc::ENOTSOCK));
    // A connection that a command ends.
    assert_eq!(host_system("tcpdrop -a"), 0);
    assert_eq!(script.read(fd, 10), Err(libc::ECONNABORTED));
    script.sends("R. 1001:1001(0) ack 1");
    assert_eq!(script.close(fd), Ok(0));
    settings_reach_the_stack_that_runs(&mut script, listener);
    script.end();
    assert_eq!(host_option(-1, libc::IPPROTO_TCP, libc::TCP_INFO, 232), Err(libc::EBADF));
}

/// The key of fast open cookies: the system's, and that of a listener that has its own.
fn settings_reach_the_stack_that_runs(script: &mut Script, listener: i32) {
    let system = "net.ipv4.tcp_fastopen=0x403 net.ipv4.tcp_fastopen_key=00000000-00000000-00000000-00000000";
    assert_eq!(script.close(listener), Ok(0));
    assert_eq!(host_system(&format!("sysctl -q {system}")), 0);
    let mut cookies = Vec::new();
    for key in [None, Some([1; 4]), None] {
        let fd = script.socket(0);
        if let Some(key) = key {
            let name = 33; // TCP_FASTOPEN_KEY
            assert_eq!(script.set_option(fd, libc::IPPROTO_TCP, name, &key), Ok(0));
        }
        assert_eq!((script.bind(fd, LISTEN_PORT), script.listen(fd)), (Ok(0), Ok(0)));
        script.next_peer();
        script.gets("S 0:0(0) win 65535 <mss 1000,FO,nop,nop>");
        let (packet, _) = script.receive().expect("a SYN-ACK");
        // Behind the MSS: ten bytes of cookie and two of padding.
        assert_eq!((packet.len(), packet[44]), (40 + 16, 34));
        cookies.push(packet[44..].to_vec());
        assert_eq!(script.close(fd), Ok(0));
        let (reset, _) = script.receive().expect("the handshake is over");
        assert_eq!(reset[33] & 4, 4);
    }
    assert_eq!(cookies[0], cookies[2], "the listener with a key of its own is gone");
    assert_ne!(cookies[0], cookies[1]);
}
