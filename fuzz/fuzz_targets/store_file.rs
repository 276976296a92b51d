#![no_main]

use wxtokend::internals::is_reading;
use wxtokend_fuzz_targets::store_file::run;

libfuzzer_sys::fuzz_target!(init: let_redb_panic(), |input: &[u8]| run(input));

/// A panic is a crash to the fuzzer, but one of redb's over a damaged file is caught and becomes an error of ours.
fn let_redb_panic() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_reading() {
            abort(panic);
        }
    }));
}
