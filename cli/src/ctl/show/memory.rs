//! `show memory`: what pools hold.

use hoststack::inspect::{MemoryInfo, PoolInfo};

use crate::table::{Column, Table, bytes, grouped};

/// A line per pool of an owner, and the sum. Pools that hold nothing and never did are left out, unless `all`.
pub(crate) fn memory(memory: &MemoryInfo, all: bool) -> String {
    let mut table = Table::new(&[
        Column::Left("owner"),
        Column::Left("pool"),
        Column::Right("used"),
        Column::Right("most"),
        Column::Right("limit"),
        Column::Right("full"),
        Column::Right("each"),
        Column::Right("held"),
    ]);
    let number = |number: Option<usize>| number.map_or("-".to_owned(), |number| grouped(number as u64));
    for pool in memory.pools.iter().filter(|pool| all || is_of_interest(pool)) {
        table.row([
            pool.owner.clone(),
            pool.pool.to_owned(),
            grouped(pool.used as u64),
            number(pool.high_water),
            number(pool.limit),
            percent(pool),
            bytes(pool.element_bytes as u64),
            bytes(pool.held_bytes as u64),
        ]);
    }
    format!("{table}held in all: {}\n", bytes(memory.held_bytes as u64))
}

fn is_of_interest(pool: &PoolInfo) -> bool {
    pool.used > 0 || pool.held_bytes > 0 || pool.high_water.unwrap_or(0) > 0
}

/// How much of the limit is used, rounded up: one of a million is not nothing.
fn percent(pool: &PoolInfo) -> String {
    match pool.limit {
        Some(limit) if limit > 0 => format!("{}%", (pool.used as u64 * 100).div_ceil(limit as u64)),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_listed_with_their_share_of_the_limit() {
        let pool = |pool, used, high_water, limit, held_bytes| PoolInfo {
            owner: "worker 0".into(),
            pool,
            used,
            high_water,
            limit,
            element_bytes: 320,
            held_bytes,
        };
        let shown = MemoryInfo {
            held_bytes: 1_330_720,
            pools: vec![
                pool("sessions", 1001, Some(2000), Some(100_000), 1_310_720),
                pool("tcp-timers", 0, None, None, 20_000),
                pool("local-ends", 0, Some(0), Some(10), 0),
            ],
        };
        assert_eq!(
            memory(&shown, false),
            "owner     pool         used   most    limit  full   each     held
worker 0  sessions    1 001  2 000  100 000    2%  320 B   1.3 MB
worker 0  tcp-timers      0      -        -     -  320 B  20.0 kB
held in all: 1.3 MB\n"
        );
        assert!(memory(&shown, true).contains("local-ends"));
    }
}
