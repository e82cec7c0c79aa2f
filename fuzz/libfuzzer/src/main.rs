//! libFuzzer over one of the targets, chosen by `HOSTSTACK_FUZZ_TARGET`. Start it by `fuzz/run`, which builds it with
//! the counters that make it see coverage.
#![no_main]

use std::sync::OnceLock;

use hoststack_fuzz::Target;
use libfuzzer_sys::fuzz_target;

const VARIABLE: &str = "HOSTSTACK_FUZZ_TARGET";

fn target() -> &'static Target {
    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        hoststack_fuzz::target(&name).unwrap_or_else(|| panic!("{VARIABLE}={name:?}: no such target"))
    })
}

fuzz_target!(|bytes: &[u8]| (target().run)(bytes));
