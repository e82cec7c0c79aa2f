//! The kernel's side of a TAP device.

use crate::netns::Namespace;
use crate::wait;

/// How many queues a TAP device has: whoever attaches must ask for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One.
    Single,
    /// One for each file descriptor that attaches.
    Multi,
}

/// A TAP device in a namespace, as the kernel sees it. It goes with its namespace.
#[derive(Debug)]
pub struct Tap<'n> {
    namespace: &'n Namespace,
    name: String,
}

impl<'n> Tap<'n> {
    /// Makes a device that stays when nobody holds its other end; brings it up. `hoststack` attaches to it.
    ///
    /// # Panics
    /// When the name is taken or longer than 15 bytes.
    #[must_use]
    pub fn create(namespace: &'n Namespace, name: &str, queues: Queues) -> Self {
        let mut arguments = vec!["tuntap", "add", "dev", name, "mode", "tap"];
        if queues == Queues::Multi {
            arguments.push("multi_queue");
        }
        namespace.run("ip", &arguments);
        let tap = Self { namespace, name: name.to_owned() };
        tap.up();
        tap
    }

    /// Waits for a device that `hoststack` makes itself, and brings it up.
    ///
    /// # Panics
    /// When it does not appear.
    #[must_use]
    pub fn adopt(namespace: &'n Namespace, name: &str) -> Self {
        let path = format!("/sys/class/net/{name}");
        wait::until(&format!("the device {name}"), wait::READY, || {
            let mut command = namespace.command("test");
            command.args(["-e", &path]);
            command.status().is_ok_and(|status| status.success()).then_some(())
        });
        let tap = Self { namespace, name: name.to_owned() };
        tap.up();
        tap
    }

    fn up(&self) {
        self.namespace.run("ip", &["link", "set", "dev", &self.name, "up"]);
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the kernel's side an address with prefix length, IPv4 or IPv6, usable at once.
    #[must_use]
    pub fn with_address(self, address: &str) -> Self {
        let mut arguments = vec!["address", "add", address, "dev", &self.name];
        if address.contains(':') {
            arguments.push("nodad");
        }
        self.namespace.run("ip", &arguments);
        self
    }

    /// Sets the kernel's MTU.
    #[must_use]
    pub fn with_mtu(self, mtu: u32) -> Self {
        self.namespace.run("ip", &["link", "set", "dev", &self.name, "mtu", &mtu.to_string()]);
        self
    }

    /// Waits until somebody holds the other end.
    ///
    /// # Panics
    /// When nobody does in time.
    pub fn wait_attached(&self) {
        wait::until(&format!("a holder of {}", self.name), wait::READY, || {
            let link = self.namespace.run("ip", &["-brief", "link", "show", "dev", &self.name]);
            link.contains("LOWER_UP").then_some(())
        });
    }

    /// What the kernel knows of its neighbours here, as `ip neighbour` prints it.
    #[must_use]
    pub fn neighbours(&self) -> String {
        self.namespace.run("ip", &["neighbour", "show", "dev", &self.name])
    }
}
