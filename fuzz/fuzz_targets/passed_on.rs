#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wxtokend_fuzz_targets::passed_on::run(input));
