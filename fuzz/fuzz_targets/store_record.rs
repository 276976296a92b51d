#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wxtokend_fuzz::store_record::run(input));
