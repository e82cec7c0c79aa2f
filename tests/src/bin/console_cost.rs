//! What looking costs: `cargo run --release -p hoststack-tests --bin console_cost -- --help`.
//!
//! A real `hoststack run` with a million sessions, asked by real `hoststack ctl`s, while an echo client measures round trips over
//! a socket of the host on the same worker: with nobody looking, and while `show session verbose 2 all` walks them all, in turn.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

/// Ports of the server: so many connections of one client address each.
const PORTS: u32 = 40;
/// Questions that are timed, and what is said of them.
const QUESTIONS: [(&str, &str); 6] = [
    ("show session", "summary"),
    ("show session limit 100", "first page"),
    ("show session app echo port 7003", "first page of a filtered list"),
    ("show session remote 192.0.2.1", "a filter that nothing fits: all are looked at"),
    ("show session stuck", "what cannot go on"),
    ("show status", "everything at a glance"),
];

/// Measures the debug CLI over a stack with many sessions.
#[derive(Debug, Parser)]
struct Args {
    /// The program; built with `cargo build --release` before.
    #[arg(long, default_value = "target/release/hoststack")]
    program: PathBuf,
    /// Sessions, both ends of each connection counted.
    #[arg(long, default_value_t = 1_000_000)]
    sessions: u32,
    /// Seconds that each window lasts.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Pairs of windows.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// A running stack; dropped, it is told to end.
struct Run {
    child: Child,
    program: PathBuf,
    socket: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    fn start(program: &Path, folder: &Path, echo: SocketAddr) -> std::io::Result<Run> {
        let socket = folder.join("ctl.sock");
        let places: Vec<String> =
            (0..PORTS).map(|port| format!("\"tcp://10.0.0.2:{}\"", 7001 + port)).collect();
        let text = format!(
            "workers = 1\n[limits]\nsessions = 1200000\n[[device]]\nname = \"wire:a\"\naddresses = [\"10.0.0.1/24\"]\n\
             [[device]]\nname = \"wire:a\"\ndomain = 1\naddresses = [\"10.0.0.2/24\"]\n[[app]]\nname = \"echo\"\nkind = \"echo\"\n\
             domain = 1\nbacklog = 65536\nlisten = [{}]\n[[app]]\nname = \"host\"\nkind = \"echo\"\n\
             listen = [\"kernel+tcp://{echo}\"]\n[cli]\nsocket = \"{}\"\n",
            places.join(", "),
            socket.display()
        );
        let file = folder.join("run.toml");
        std::fs::write(&file, text)?;
        let child = Command::new(program).args(["run", "-c"]).arg(&file).stdout(Stdio::null()).spawn()?;
        let run = Run { child, program: program.to_owned(), socket };
        // It answers when it is up.
        while !run.ctl("show version").output()?.status.success() {}
        Ok(run)
    }

    fn ctl(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("ctl").arg("--socket").arg(&self.socket).arg(line).stderr(Stdio::null());
        command
    }

    fn ask(&self, line: &str) -> std::io::Result<String> {
        let output = self.ctl(line).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sessions that are open, as the summary has it.
    fn open(&self) -> std::io::Result<u32> {
        let text = self.ask("show session")?;
        let open = text.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(open.and_then(|number| number.parse().ok()).unwrap_or(0))
    }
}

/// Round trips of 64 bytes for so long, in microseconds, sorted.
#[allow(clippy::disallowed_methods, reason = "what is measured is the time of the machine")]
fn round_trips(stream: &mut TcpStream, seconds: f64) -> std::io::Result<Vec<f64>> {
    let (mut buffer, mut trips) = ([0; 64], Vec::new());
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < seconds {
        let sent = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        trips.push(sent.elapsed().as_secs_f64() * 1e6);
        std::thread::sleep(Duration::from_micros(500));
    }
    trips.sort_by(f64::total_cmp);
    Ok(trips)
}

/// The middle one.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    share(&sorted, 500)
}

fn share(trips: &[f64], permille: usize) -> f64 {
    trips.get(trips.len() * permille / 1000).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::disallowed_methods, reason = "what is measured is the time of the machine")]
fn measure(args: &Args) -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let echo = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let run = Run::start(&args.program, folder.path(), echo)?;
    let begin = Instant::now();
    let each = args.sessions / 2 / PORTS;
    for port in 0..PORTS {
        run.ask(&format!("connect tcp://10.0.0.2:{} count {each} timeout 200s", 7001 + port))?;
    }
    while run.open()? < each * PORTS * 2 {}
    println!("{} sessions in {:.1} s", each * PORTS * 2, begin.elapsed().as_secs_f64());
    let mut stream = TcpStream::connect(echo)?;
    stream.set_nodelay(true)?;
    round_trips(&mut stream, 1.0)?;
    for (line, what) in QUESTIONS {
        let mut took: Vec<f64> = Vec::new();
        for _ in 0..5 {
            let begin = Instant::now();
            run.ask(line)?;
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        println!("{:>8.1} ms  {line:<36} {what}", median(&took));
    }
    println!("round trips in us    p50     p99   p99.9");
    let (mut idle_p99, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let idle = round_trips(&mut stream, args.seconds)?;
        let mut walk = run.ctl("show session verbose 2 all").stdout(Stdio::null()).spawn()?;
        let walked = round_trips(&mut stream, args.seconds)?;
        let was_walking = walk.try_wait()?.is_none();
        walk.wait()?;
        for (name, trips) in [("nobody looks", &idle), ("walked", &walked)] {
            let figures = [500, 990, 999].map(|permille| share(trips, permille));
            println!("{name:<16} {:>8.1} {:>7.1} {:>7.1}", figures[0], figures[1], figures[2]);
        }
        if !was_walking {
            println!("(the walk was over before the window was: `--seconds` less)");
        }
        idle_p99.push(share(&idle, 990));
        ratios.push(share(&walked, 990) / share(&idle, 990));
    }
    println!("p99 while walked / p99 while nobody looks: {:.2} (median of {})", median(&ratios), args.rounds);
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("console_cost: {error}");
            ExitCode::FAILURE
        }
    }
}
