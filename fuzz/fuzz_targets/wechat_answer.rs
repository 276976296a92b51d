#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wxtokend_fuzz_targets::wechat_answer::run(input));
