//! Child processes whose output is kept and which never outlive their test.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

pub use rustix::process::Signal;

use crate::wait;

/// Time that a killed process is given to vanish.
const REAP: Duration = Duration::from_secs(10);

/// A running child. Its output goes to files, so it never blocks on a full pipe; it is killed on drop.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    output: TempDir,
}

impl Process {
    /// Starts `command` under the name `label`, with its output captured. Standard input is what `command` says.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn spawn(label: &str, mut command: Command) -> Self {
        let output = TempDir::new().expect("a temporary directory for the output");
        let file = |name| File::create(output.path().join(name)).expect("a file for the output");
        let child = command
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {label} ({command:?}): {error}"));
        Self { label: label.to_owned(), child, output }
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let mut bytes = Vec::new();
        File::open(self.output.path().join(name))
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .expect("the output file was created by `spawn`");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for our own child").is_none()
    }

    /// Sends `signal`, if it is still running.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            // Cannot hit another process: the child has not been reaped, so its id is still its own.
            let id =
                i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a positive process id");
            kill_process(id, signal).expect("signal to our own child");
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it still runs after `limit`; it is killed and the message carries its output.
    pub fn wait(mut self, limit: Duration) -> Finished {
        match wait::poll(limit, || self.child.try_wait().expect("wait for our own child")) {
            Some(status) => self.finished(status),
            None => panic!("{} did not end within {limit:?}\n{}", self.label, self.transcript()),
        }
    }

    /// Waits until `text` appears on standard output or standard error.
    ///
    /// # Panics
    /// When it ends, or `limit` passes, before that.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) {
        let seen = wait::poll(limit, || {
            // Read after the look at the state, so that the last words of a process that ended are seen.
            let has_ended = !self.is_running();
            let is_there = self.stdout().contains(text) || self.stderr().contains(text);
            (is_there || has_ended).then_some(is_there)
        });
        assert!(seen == Some(true), "{} never said {text:?}\n{}", self.label, self.transcript());
    }

    fn finished(&self, status: ExitStatus) -> Finished {
        Finished { label: self.label.clone(), status, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Both outputs with headings, for messages.
    #[must_use]
    pub fn transcript(&self) -> String {
        transcript(&self.stdout(), &self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child has ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = wait::poll(REAP, || self.child.try_wait().ok().flatten());
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.label, self.transcript());
        }
    }
}

/// A process that has ended.
#[derive(Clone, Debug)]
#[must_use = "whether it succeeded is not checked yet"]
pub struct Finished {
    /// Name given at the start.
    pub label: String,
    /// Exit status.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Finished {
    /// Passes itself on when the exit status is 0.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{} failed ({})\n{}", self.label, self.status, self.transcript());
        self
    }

    /// Passes itself on when the process ended by itself with a status other than 0.
    ///
    /// # Panics
    /// When it succeeded or was ended by a signal.
    #[track_caller]
    pub fn failure(self) -> Self {
        let by_itself = self.status.code().is_some_and(|code| code != 0);
        assert!(by_itself, "{} should have failed ({})\n{}", self.label, self.status, self.transcript());
        self
    }

    /// Standard output as one JSON value.
    ///
    /// # Panics
    /// When it is not exactly that.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: no JSON ({error})\n{}", self.label, self.transcript()))
    }

    /// Both outputs with headings, for messages.
    #[must_use]
    pub fn transcript(&self) -> String {
        transcript(&self.stdout, &self.stderr)
    }
}

fn transcript(stdout: &str, stderr: &str) -> String {
    format!("--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
}

/// Runs a short command to its end and returns its standard output.
///
/// # Panics
/// When it fails or takes longer than [`wait::READY`].
pub fn run(label: &str, command: Command) -> String {
    Process::spawn(label, command).wait(wait::READY).success().stdout
}

/// Whether a process with this id exists.
#[must_use]
pub fn exists(id: u32) -> bool {
    fs::exists(format!("/proc/{id}")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_of_a_finished_process_are_kept_apart() {
        let done = Process::spawn("sh", shell("echo out; echo err >&2; exit 3")).wait(wait::READY);
        assert_eq!(done.stdout, "out\n");
        assert_eq!(done.stderr, "err\n");
        assert_eq!(done.failure().status.code(), Some(3));
    }

    #[test]
    fn output_larger_than_a_pipe_does_not_block() {
        let done = Process::spawn("sh", shell("head -c 1000000 /dev/zero | tr '\\0' x")).wait(wait::READY);
        assert_eq!(done.success().stdout.len(), 1_000_000);
    }

    #[test]
    fn dropping_kills() {
        let process = Process::spawn("sleep", shell("exec sleep 1000"));
        let id = process.id();
        assert!(exists(id));
        drop(process);
        assert!(!exists(id));
    }

    #[test]
    fn terminate_is_a_sigterm_that_the_child_can_answer() {
        let mut process = Process::spawn(
            "sh",
            shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done"),
        );
        process.wait_for_output("up", wait::READY);
        process.terminate();
        let done = process.wait(wait::READY);
        assert_eq!((done.status.code(), done.stdout.as_str()), (Some(7), "up\nbye\n"));
    }

    #[test]
    #[should_panic(expected = "never said \"ready\"")]
    fn a_process_that_ends_without_the_text_fails_the_wait_at_once() {
        Process::spawn("true", shell("true")).wait_for_output("ready", Duration::from_secs(3600));
    }

    #[test]
    #[should_panic(expected = "did not end within")]
    fn a_process_that_hangs_fails_the_wait() {
        let _ = Process::spawn("sleep", shell("exec sleep 1000")).wait(Duration::from_millis(20));
    }
}
