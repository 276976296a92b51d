#![no_main]

use wxtokend::internals::is_reading;
use wxtokend_fuzz_targets::store_file::run;

libfuzzer_sys::fuzz_target!(init: let_redb_panic(), |input: &[u8]| run(input));

/// Lets redb panic: a panic counts as a crash to the fuzzer, but redb's over a damaged file are caught and
/// become errors of ours.
fn let_redb_panic() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_reading() {
            abort(panic);
        }
    }));
}
