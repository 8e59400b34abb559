//! Device time and turns of VMs and sessions, as the scheduler measures and grants them.

use super::Daemon;
use crate::scheduler::Report;
use crate::vm::registry::Vm;
use pxos_protocol::admin::Usage;

/// A session's time on the devices.
pub(super) fn of_session(daemon: &Daemon, session: u64) -> Usage {
    let queue = daemon.scheduling.queue(session);
    Usage {
        gpu_nanos: daemon.scheduling.device_time(session),
        queue: queue.in_flight,
        waiting: queue.waiting,
        wait_nanos: queue.waited,
        ..Usage::default()
    }
}

/// A VM's turns on all devices: what is common to its sessions. Since it had its first one, the daemon lives on.
pub(super) fn of_vm(daemon: &Daemon, vm: &Vm) -> Usage {
    sum(&daemon.scheduling.reports(vm.number))
}

fn sum(reports: &[Report]) -> Usage {
    let mut usage = Usage::default();
    for report in reports {
        usage.queue = usage.queue.saturating_add(report.in_flight.into());
        usage.waiting |= report.waiting;
        usage.wait_nanos = usage.wait_nanos.saturating_add(report.waited);
        usage.leases = usage.leases.saturating_add(report.leases);
        usage.waits.resize(report.waits.len().max(usage.waits.len()), 0);
        for (sum, more) in usage.waits.iter_mut().zip(&report.waits) {
            *sum = sum.saturating_add(*more);
        }
    }
    // The device that has something to do explains more than those that have not.
    let busy = |report: &&Report| report.waiting || report.in_flight > 0;
    if let Some(report) = reports.iter().find(busy).or_else(|| reports.first()) {
        usage.reason = report.reason.to_string();
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_added_up_and_the_busy_one_explains() {
        let idle = Report { leases: 1, waited: 5, ..Report::default() };
        let busy = Report { leases: 2, waited: 7, in_flight: 3, ..Report::default() };
        let usage = sum(&[idle.clone(), busy.clone()]);
        assert_eq!((usage.leases, usage.wait_nanos, usage.queue), (3, 12, 3));
        assert_eq!(usage.waits.len(), idle.waits.len());
        assert_eq!(usage.reason, busy.reason.to_string());
        assert_eq!(sum(&[]), Usage::default());
    }
}
