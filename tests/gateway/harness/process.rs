//! What a running process costs, as the kernel counts it.

use std::time::Duration;

/// Resident memory in bytes.
pub(crate) fn resident(process: u32) -> u64 {
    status(process, "VmRSS")
}

/// The most that was resident since [`forget_peak`], in bytes.
pub(crate) fn peak(process: u32) -> u64 {
    status(process, "VmHWM")
}

pub(crate) fn forget_peak(process: u32) {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").expect("our own child");
}

/// Processor time so far, in ticks of 10 ms.
pub(crate) fn processor(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a running process");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].map(|field| fields[field].parse::<u64>().unwrap()).iter().sum();
    Duration::from_millis(ticks * 10)
}

fn status(process: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with(key)).expect("a known key");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}
