//! Two real guests against one server.

#[cfg(test)]
mod tests {
    use pxos_harness::{Driver, skipped};
    use pxos_vm::scenario::{self, Stage};

    #[test]
    fn two_guests_run_programs_at_once_and_know_nothing_of_each_other() {
        match Stage::set() {
            Ok(stage) => scenario::two_guests(&stage, Driver::UnderTest),
            Err(reason) => skipped(&reason),
        }
    }
}
