//! Which devices VMs see, as the driver has found them, and whether what VMs are promised of them can be kept.

use super::Daemon;
use super::process::Visible;
use crate::vm::Rights;
use crate::vm::gpus;
use crate::vm::registry::{Changing, Plan, may_connect};
use pxos_protocol::control::Snapshot;
use std::collections::BTreeMap;

/// The devices of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    /// Their numbers among the server's, in the session's order.
    pub(super) numbers: Vec<usize>,
    /// What its worker has to see.
    pub(super) visible: Visible,
}

impl Devices {
    /// What rights give.
    ///
    /// # Errors
    /// That a device is not there.
    pub(super) fn of(rights: &Rights, snapshot: &Snapshot) -> Result<Self, String> {
        let numbers = rights.gpus.resolve(snapshot)?;
        let visible = Visible(gpus::visible(snapshot, &numbers).map(Into::into));
        Ok(Self { numbers, visible })
    }
}

/// Whether all of these VMs' rights can be had on these devices.
///
/// # Errors
/// The first reason why not.
fn check(snapshot: &Snapshot, plan: &Plan) -> Result<(), String> {
    let mut promised: BTreeMap<usize, Vec<(&str, u64)>> = BTreeMap::new();
    for (name, rights) in plan {
        let of_vm = |message| format!("VM '{name}': {message}");
        rights.check().map_err(of_vm)?;
        let numbers = rights.gpus.resolve(snapshot).map_err(of_vm)?;
        match (rights.limits.memory_min, numbers.as_slice()) {
            (0, _) => {}
            (bytes, [device]) => promised.entry(*device).or_default().push((name, bytes)),
            (_, devices) => {
                return Err(of_vm(format!(
                    "memory_min is a promise of one device's memory, and it sees {}: name one in gpus",
                    devices.len()
                )));
            }
        }
    }
    for (device, promises) in promised {
        let total = snapshot.devices[device].total_memory;
        let sum = promises.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        if sum > total {
            let all: Vec<String> = promises.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
            return Err(format!(
                "memory_min: device {device} has {total} bytes, and VMs are promised {sum} of them: {}",
                all.join(", ")
            ));
        }
    }
    Ok(())
}

impl Daemon {
    /// Whether all of these VMs' rights can be had. Until the devices are known it is only said whether each agrees with itself.
    ///
    /// # Errors
    /// The first reason why not.
    pub(super) fn check_rights(&self, plan: &Plan) -> Result<(), String> {
        match self.pool.snapshot() {
            Some(snapshot) => check(&snapshot, plan),
            None => plan.iter().try_for_each(|(_, rights)| rights.check()),
        }
    }

    /// As [`Self::check_rights`], of the VMs as they are.
    ///
    /// # Errors
    /// The first reason why not.
    pub(super) fn check_standing(&self, _changing: &Changing<'_>) -> Result<(), String> {
        self.check_rights(&self.vms.all().iter().map(|vm| (vm.name.clone(), vm.rights())).collect())
    }

    /// The devices of a VM of these rights.
    ///
    /// # Errors
    /// That there are none yet, or not these.
    pub(super) fn devices_of(&self, rights: &Rights) -> Result<Devices, String> {
        let snapshot = self.pool.snapshot().ok_or("no worker was ever ready")?;
        Devices::of(rights, &snapshot)
    }

    /// Keeps workers warm for the devices that VMs see now.
    pub(super) fn keep_workers(&self) {
        let of_vms = self.vms.all().into_iter().filter(|vm| !vm.is_draining()).map(|vm| vm.rights());
        let sets = of_vms.chain([self.config().default.clone()]).filter(may_connect).filter_map(|rights| {
            // What cannot be had any more is said to who comes for it.
            self.devices_of(&rights).ok().map(|devices| devices.visible)
        });
        self.pool.keep(sets.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Limits;
    use crate::vm::gpus::tests::snapshot;

    fn vm(name: &str, gpus: &str, memory_min: u64) -> (String, Rights) {
        let limits = Limits { memory_min, ..Limits::default() };
        (name.to_owned(), Rights { gpus: gpus.parse().unwrap(), limits, ..Rights::default() })
    }

    #[test]
    fn promises_that_cannot_be_kept_are_refused() {
        let two = snapshot(2, 100);
        let check = |plan: &[(String, Rights)]| check(&two, &plan.to_vec());
        assert_eq!(
            check(&[vm("red", "0", 60), vm("blue", "0", 40), vm("green", "1", 100), vm("x", "all", 0)]),
            Ok(())
        );
        let error = check(&[vm("red", "0", 60), vm("blue", "GPU-01", 41)]).unwrap_err();
        assert!(
            error.contains("device 0 has 100 bytes, and VMs are promised 101 of them: red 60, blue 41"),
            "{error}"
        );
        assert!(check(&[vm("red", "all", 1)]).unwrap_err().contains("it sees 2: name one in gpus"));
        assert!(check(&[vm("red", "2", 0)]).unwrap_err().contains("VM 'red': gpus: there is no device 2"));
        assert!(check(&[vm("red", "0", u64::MAX), vm("blue", "0", 1)]).is_err());
        // Where there is one device, all is one.
        assert_eq!(super::check(&snapshot(1, 100), &vec![vm("red", "all", 100)]), Ok(()));
    }

    #[test]
    fn a_worker_is_told_of_devices_only_where_they_are_not_all() {
        let three = snapshot(3, 1);
        assert_eq!(Devices::of(&vm("", "all", 0).1, &three).unwrap().visible, Visible::ALL);
        assert_eq!(Devices::of(&vm("", "0,1,2", 0).1, &three).unwrap().visible, Visible::ALL);
        let some = Devices::of(&vm("", "2", 0).1, &three).unwrap();
        assert_eq!((some.numbers, some.visible.to_string()), (vec![2], gpus::uuid_of(&three, 2)));
    }
}
