//! What changes: asked of the server each time, and shares of device time, which are taken between two looks.

use crate::facts::{Facts, ask};
use crate::types::Result;
use pxos_protocol::monitor::{DeviceTime, ProcessUse, VmUse};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How old an answer may be that tells of sensors: as old as the server's own reading.
const FRESH: Duration = Duration::from_millis(100);
/// Shortest time over which a share is taken.
const LEAST_WINDOW: Duration = Duration::from_millis(100);
/// Longest: NVML speaks of the recent past, at most a second on most devices.
const LONGEST_WINDOW: Duration = Duration::from_secs(2);

/// The last answer, for programs that ask for one thing after the other.
static LAST: Mutex<Option<(Instant, Arc<VmUse>)>> = Mutex::new(None);
/// The last look at device time, and the shares that came of it.
static LOOK: Mutex<Option<Look>> = Mutex::new(None);

struct Look {
    at: Instant,
    vm_use: Arc<VmUse>,
    shares: Option<Shares>,
}

/// Percent of device time between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares {
    /// When, in microseconds since 1970.
    pub(crate) at: u64,
    /// The VM's, by place of the device.
    pub(crate) devices: Vec<u32>,
    /// Each process's, by its number in the guest, and by place of the device.
    pub(crate) processes: Vec<(u32, Vec<u32>)>,
}

/// How the VM uses its devices at this moment.
pub(crate) fn now(facts: &Facts) -> Result<Arc<VmUse>> {
    let answer = Arc::new(ask(facts)?);
    // Not waited for: a child that was forked meanwhile would wait for ever.
    if let Ok(mut last) = LAST.try_lock() {
        *last = Some((Instant::now(), Arc::clone(&answer)));
    }
    Ok(answer)
}

/// The same, at most [`FRESH`] ago.
pub(crate) fn lately(facts: &Facts) -> Result<Arc<VmUse>> {
    if let Ok(last) = LAST.try_lock()
        && let Some((at, answer)) = &*last
        && at.elapsed() < FRESH
    {
        return Ok(Arc::clone(answer));
    }
    now(facts)
}

/// Shares of device time lately. Who asks for the first time waits until there is something to compare with.
pub(crate) fn shares(facts: &Facts) -> Result<Shares> {
    let before = LOOK.try_lock().ok().and_then(|mut look| {
        if let Some(Look { at, shares: Some(shares), .. }) = &*look
            && at.elapsed() < LEAST_WINDOW
        {
            return Some(Err(shares.clone()));
        }
        look.take().filter(|look| look.at.elapsed() < LONGEST_WINDOW).map(Ok)
    });
    let before = match before {
        Some(Err(shares)) => return Ok(shares),
        Some(Ok(look)) => look,
        None => Look { at: Instant::now(), vm_use: now(facts)?, shares: None },
    };
    std::thread::sleep(LEAST_WINDOW.saturating_sub(before.at.elapsed()));
    let after = now(facts)?;
    let shares = Shares::between(&before.vm_use, &after);
    if let Ok(mut look) = LOOK.try_lock() {
        *look = Some(Look { at: Instant::now(), vm_use: after, shares: Some(shares.clone()) });
    }
    Ok(shares)
}

impl Shares {
    fn between(before: &VmUse, after: &VmUse) -> Self {
        let window = after.now.saturating_sub(before.now).max(1);
        let processes: Vec<(u32, Vec<u32>)> = after
            .processes
            .iter()
            .map(|process| {
                let earlier = before.processes.iter().find(|other| other.session == process.session);
                (process.pid, of_process(earlier, process, window))
            })
            .collect();
        let sum = |place| {
            let of = |(_, shares): &(u32, Vec<u32>)| shares.get(place).copied().unwrap_or(0);
            processes.iter().map(of).fold(0, u32::saturating_add).min(100)
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self {
            at: u64::try_from(at).unwrap_or(u64::MAX),
            devices: (0..after.devices.len()).map(sum).collect(),
            processes,
        }
    }
}

/// Percent that a process had of each device.
fn of_process(before: Option<&ProcessUse>, after: &ProcessUse, window: u64) -> Vec<u32> {
    let of = |(place, now): (usize, &DeviceTime)| {
        let then = before.and_then(|before| before.devices.get(place)).copied().unwrap_or_default();
        let had = now.nanos.saturating_sub(then.nanos);
        // Time is charged when work completes: what was under way all the time and did not complete had all of it.
        if had == 0 && then.in_flight && now.in_flight {
            return 100;
        }
        // Rounded up, as who computes at all is seen to.
        let percent = (u128::from(had) * 100).div_ceil(u128::from(window));
        u32::try_from(percent.min(100)).unwrap_or(100)
    };
    after.devices.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::monitor::DeviceUse;

    fn seen(now: u64, processes: &[(u64, u64, bool)]) -> VmUse {
        let process = |(session, nanos, in_flight): &(u64, u64, bool)| ProcessUse {
            session: *session,
            pid: u32::try_from(*session).unwrap() + 1000,
            devices: vec![DeviceTime { nanos: *nanos, in_flight: *in_flight }],
            ..ProcessUse::default()
        };
        VmUse {
            now,
            devices: vec![DeviceUse::default()],
            processes: processes.iter().map(process).collect(),
            ..VmUse::default()
        }
    }

    #[test]
    fn a_share_is_device_time_over_time() {
        let before = seen(1_000_000_000, &[(1, 5_000_000_000, false), (2, 0, false)]);
        let after = seen(1_100_000_000, &[(1, 5_025_000_000, true), (2, 10_000_000, false), (3, 1, false)]);
        let shares = Shares::between(&before, &after);
        assert_eq!(shares.devices, [36]);
        assert_eq!(shares.processes, [(1001, vec![25]), (1002, vec![10]), (1003, vec![1])]);
    }

    #[test]
    fn a_kernel_that_never_ends_has_all_of_it_and_nonsense_is_bounded() {
        let shares = Shares::between(&seen(0, &[(1, 7, true)]), &seen(100, &[(1, 7, true)]));
        assert_eq!(shares.devices, [100]);
        let shares =
            Shares::between(&seen(5, &[(1, 9, false)]), &seen(0, &[(1, u64::MAX, false), (2, 0, false)]));
        assert_eq!(shares.devices, [100]);
        assert_eq!(Shares::between(&VmUse::default(), &VmUse::default()).devices, [0_u32; 0]);
    }
}
