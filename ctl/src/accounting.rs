//! `pxctl accounting`: what each VM has used, for people, as JSON, and as CSV for a bill.

use crate::units::{bytes, count, fit};
use crate::{Failure, json};
use pxos_client::Control;
use pxos_protocol::admin::Account;
use std::fmt::Write;
use std::path::Path;

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As CSV, with fractions of hours
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Price of an hour of a whole device; adds a column
    #[arg(long, value_name = "PRICE", requires = "csv")]
    gpu_hour: Option<f64>,
    /// Price of holding a gibibyte of device memory for an hour; adds to that column
    #[arg(long, value_name = "PRICE", requires = "csv")]
    gib_hour: Option<f64>,
}

/// Shows it.
pub(crate) fn run(path: &Path, args: &Args) -> Result<(), Failure> {
    let accounts = Control::connect(path)?.accounting()?;
    if args.json {
        json(&accounts);
    } else if args.csv {
        print!("{}", csv(&accounts, args.gpu_hour, args.gib_hour));
    } else {
        print!("{}", table(&accounts));
    }
    Ok(())
}

/// Comma-separated values after RFC 4180: a header, then a line for each VM.
fn csv(accounts: &[Account], gpu_hour: Option<f64>, gib_hour: Option<f64>) -> String {
    let priced = gpu_hour.is_some() || gib_hour.is_some();
    let mut out = "vm,since,sessions,gpu_seconds,gpu_hours,memory_gib_hours,launches,bytes_to_device,\
                   bytes_to_host,refusals,faults,decode_errors"
        .to_owned();
    out += if priced { ",amount\r\n" } else { "\r\n" };
    for account in accounts {
        let hours = account.gpu_seconds / 3600.0;
        let _ = write!(
            out,
            "{},{},{},{:.6},{hours:.9},{:.9},{},{},{},{},{},{}",
            field(&account.vm),
            account.since,
            account.sessions,
            account.gpu_seconds,
            account.memory_gib_hours,
            account.launches,
            account.bytes_to_device,
            account.bytes_to_host,
            account.refusals,
            account.faults,
            account.decode_errors,
        );
        if priced {
            let amount = hours * gpu_hour.unwrap_or(0.0) + account.memory_gib_hours * gib_hour.unwrap_or(0.0);
            let _ = write!(out, ",{amount:.6}");
        }
        out += "\r\n";
    }
    out
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn table(accounts: &[Account]) -> String {
    if accounts.is_empty() {
        return "nobody has used anything\n".to_owned();
    }
    let mut out = format!(
        "{:<20} {:>5} {:>10} {:>9} {:>8} {:>9} {:>9}\n",
        "VM", "SESS", "GPU-S", "GIB-H", "LAUNCHES", "TO-DEV", "TO-HOST"
    );
    for account in accounts {
        let _ = writeln!(
            out,
            "{:<20} {:>5} {:>10.3} {:>9.4} {:>8} {:>9} {:>9}",
            fit(&account.vm, 20),
            count(account.sessions),
            account.gpu_seconds,
            account.memory_gib_hours,
            count(account.launches),
            bytes(account.bytes_to_device),
            bytes(account.bytes_to_host),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_fractional() {
        let account = Account {
            vm: "a,\"b\"".into(),
            gpu_seconds: 1.8,
            memory_gib_hours: 0.25,
            launches: 7,
            ..Account::default()
        };
        let text = csv(&[account], Some(2.0), Some(0.1));
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].ends_with("decode_errors,amount"), "{text}");
        assert_eq!(lines[1], "\"a,\"\"b\"\"\",0,0,1.800000,0.000500000,0.250000000,7,0,0,0,0,0,0.026000");
        assert!(!csv(&[], None, None).contains("amount"));
    }

    #[test]
    fn the_table_fits() {
        let text = table(&[Account { vm: "x".repeat(40), ..Account::default() }]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
