//! Masks of every strategy: what holds for any grid, any parameters and any seed, and that sampling ends.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::strategy::Strategy as Generated;
use webjepa::Error;
use webjepa::mask::{
    MaskType, Masks, Multiblock, Multiblock3d, Random, Source, Strategy, Tube, sample,
};
use webjepa::rng::Stream;

fn default_masks(grid: [usize; 3], strategy: Strategy, seed: u64, batch: usize) -> Masks {
    sample(grid, &strategy, Source::Default, seed, batch).unwrap()
}

/// What every result promises: lists of ascending indices of the grid, of one length in a block and in a context mask.
fn assert_sound(masks: &Masks, grid: [usize; 3], batch: usize) {
    let tokens: usize = grid.iter().product();
    assert_eq!(masks.context.len() % batch, 0);
    let groups = masks
        .context
        .chunks(batch)
        .chain(masks.targets.iter().map(Vec::as_slice));
    for group in groups {
        assert_eq!(group.len(), batch);
        for list in group {
            assert_eq!(list.len(), group[0].len());
            assert!(!list.is_empty() && list.is_sorted_by(|a, b| a < b));
            assert!(list.iter().all(|&i| i < tokens));
        }
    }
}

fn parts_of(list: &[usize], others: &[&Vec<usize>]) -> (usize, usize) {
    let others: HashSet<_> = others.iter().flat_map(|l| l.iter()).collect();
    let shared = list.iter().filter(|i| others.contains(i)).count();
    (shared, list.len() - shared)
}

fn range(low: f64, high: f64) -> impl Generated<Value = [f64; 2]> {
    [low..=high, low..=high].prop_map(|mut ends| {
        ends.sort_by(f64::total_cmp);
        ends
    })
}

fn grids() -> impl Generated<Value = [usize; 3]> {
    [1usize..6, 1usize..24, 1usize..24]
}

prop_compose! {
    fn multiblock()(
        enc_mask_scale in range(0.0, 1.0),
        pred_mask_scale in range(0.0, 1.0),
        aspect_ratio in range(0.1, 10.0),
        num_enc_masks in 1usize..4,
        num_pred_masks in 1usize..6,
        min_keep in prop::option::of(0usize..40),
        allow_overlap: bool,
    ) -> Multiblock {
        Multiblock { enc_mask_scale, pred_mask_scale, aspect_ratio, num_enc_masks, num_pred_masks, min_keep, allow_overlap }
    }
}

prop_compose! {
    fn mask_type()(
        num_blocks in 1usize..9,
        spatial_scale in range(0.0, 1.0),
        temporal_scale in range(0.0, 1.0),
        aspect_ratio in range(0.1, 10.0),
        max_temporal_keep in 0.05..=1.0,
        max_keep in prop::option::of(1usize..50),
        complement in 0..3,
        inv_block: bool,
    ) -> MaskType {
        MaskType {
            num_blocks, spatial_scale, temporal_scale, aspect_ratio, max_temporal_keep, max_keep, inv_block,
            full_complement: complement == 1,
            pred_full_complement: complement == 2,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn multiblock_ends_on_any_grid(grid in grids(), parameters in multiblock(), seed: u64, batch in 1usize..5) {
        let strategy = Strategy::Multiblock(parameters.clone());
        let checked = strategy.check(grid);
        let (mut sizes, mut places) = (Stream::new(seed, "", 0), Stream::new(seed, "", 1));
        match strategy.sample(grid, batch, &mut sizes, &mut places) {
            Ok(masks) => {
                assert_sound(&masks, grid, batch);
                prop_assert_eq!(masks.context.len(), parameters.num_enc_masks * batch);
                prop_assert_eq!(masks.targets.len(), parameters.num_pred_masks);
                let keep = parameters.min_keep.unwrap_or(0);
                prop_assert!(masks.context.iter().all(|c| c.len() > keep));
                prop_assert!(masks.targets.iter().flatten().all(|t| t.len() > keep));
                let border = |i: usize| (i / grid[2]) % grid[1] == grid[1] - 1 || i % grid[2] == grid[2] - 1;
                prop_assert!(!masks.context.iter().chain(masks.targets.iter().flatten()).flatten().any(|&i| border(i)));
            }
            Err(error) => {
                prop_assert_eq!(error.code(), "bad-mask");
                prop_assert!(checked.is_err(), "check() promised masks: {}", error);
            }
        }
    }

    #[test]
    fn the_defaults_of_multiblock_work_from_seven_tokens_on(h in 2usize..24, w in 2usize..24, seed: u64) {
        // Of six, 0.15 is no whole token.
        prop_assume!(h * w > 6);
        assert_sound(&default_masks([1, h, w], Strategy::Multiblock(Multiblock::default()), seed, 2), [1, h, w], 2);
    }

    #[test]
    fn multiblock3d_ends_on_any_grid(grid in grids(), types in prop::collection::vec(mask_type(), 1..3), seed: u64, batch in 1usize..4) {
        let (mut sizes, mut places) = (Stream::new(seed, "", 0), Stream::new(seed, "", 1));
        let strategy = Strategy::Multiblock3d(Multiblock3d { types: types.clone() });
        match strategy.sample(grid, batch, &mut sizes, &mut places) {
            Ok(masks) => {
                assert_sound(&masks, grid, batch);
                for (m, kind) in types.iter().enumerate() {
                    for b in 0..batch {
                        let (context, target) = (&masks.context[m * batch + b], &masks.targets[m][b]);
                        let (shared, own) = parts_of(context, &[target]);
                        prop_assert_eq!(shared, 0);
                        if kind.full_complement || kind.pred_full_complement {
                            prop_assert_eq!(own + target.len(), grid.iter().product::<usize>());
                        }
                        if let (Some(most), false, false) = (kind.max_keep, kind.pred_full_complement, kind.inv_block) {
                            prop_assert!(context.len() <= most);
                        }
                    }
                }
            }
            Err(error) => prop_assert_eq!(error.code(), "bad-mask"),
        }
    }

    #[test]
    fn tubes_are_the_same_in_every_time_step(grid in grids(), ratio in 0.0..=1.0, seed: u64, batch in 1usize..4) {
        let strategy = Strategy::Tube(Tube { ratio });
        match sample(grid, &strategy, Source::Default, seed, batch) {
            Ok(masks) => {
                assert_sound(&masks, grid, batch);
                let [t, h, w] = grid;
                let kept = ((h * w) as f64 * (1.0 - ratio)) as usize;
                for (context, target) in masks.context.iter().zip(&masks.targets[0]) {
                    prop_assert_eq!(context.len(), t * kept);
                    prop_assert_eq!(target.len(), t * (h * w - kept));
                    prop_assert_eq!(parts_of(context, &[target]).0, 0);
                    let seen: HashSet<_> = context.iter().copied().collect();
                    prop_assert!(context.iter().all(|i| seen.contains(&(i % (h * w)))));
                }
            }
            Err(error) => prop_assert_eq!(error.code(), "bad-mask"),
        }
    }

    #[test]
    fn random_masks_are_a_partition(grid in grids(), ratio in range(0.0, 1.0), seed: u64, batch in 1usize..4) {
        let strategy = Strategy::Random(Random { ratio });
        match sample(grid, &strategy, Source::Default, seed, batch) {
            Ok(masks) => {
                assert_sound(&masks, grid, batch);
                let tokens: usize = grid.iter().product();
                for (context, target) in masks.context.iter().zip(&masks.targets[0]) {
                    prop_assert_eq!(context.len() + target.len(), tokens);
                    prop_assert_eq!(parts_of(context, &[target]).0, 0);
                    let part = context.len() as f64;
                    prop_assert!(part > tokens as f64 * (1.0 - ratio[1]) - 1.001 && part < tokens as f64 * (1.0 - ratio[0]) + 0.001);
                }
            }
            Err(error) => prop_assert_eq!(error.code(), "bad-mask"),
        }
    }
}

#[test]
fn contexts_lie_outside_of_the_targets_where_there_is_room() {
    for source in [Source::Default, Source::Torch] {
        for seed in 0..200 {
            let strategy = Strategy::Multiblock(Multiblock::default());
            let masks = sample([1, 14, 14], &strategy, source, seed, 4).unwrap();
            for (b, context) in masks.context.iter().enumerate() {
                let targets: Vec<_> = masks.targets.iter().map(|block| &block[b]).collect();
                assert_eq!(parts_of(context, &targets).0, 0, "seed {seed}");
            }
        }
    }
}

#[test]
fn targets_may_be_seen_where_that_is_allowed() {
    let masks = default_masks(
        [1, 14, 14],
        Strategy::Multiblock(Multiblock {
            allow_overlap: true,
            ..Multiblock::default()
        }),
        0,
        1,
    );
    // The whole block of 13×13 at the corner.
    let whole: Vec<_> = (0..13).flat_map(|row| row * 14..row * 14 + 13).collect();
    assert_eq!(masks.context, [whole]);
}

#[test]
fn a_clip_repeats_the_masks_of_a_picture() {
    let strategy = Strategy::Multiblock(Multiblock {
        num_enc_masks: 2,
        ..Multiblock::default()
    });
    let picture = default_masks([1, 9, 12], strategy.clone(), 3, 2);
    let clip = default_masks([3, 9, 12], strategy, 3, 2);
    let lists = |masks: &Masks| [masks.context.clone(), masks.targets.concat()].concat();
    for (one, three) in lists(&picture).into_iter().zip(lists(&clip)) {
        let repeated: Vec<_> = (0..3)
            .flat_map(|t| one.iter().map(move |i| t * 9 * 12 + i))
            .collect();
        assert_eq!(repeated, three);
    }
}

#[test]
fn the_types_of_a_batch_share_the_aspect_ratio() {
    // One block, for the whole time: the targets' rows and columns show its sides.
    let one = |scale| MaskType {
        num_blocks: 1,
        spatial_scale: [scale; 2],
        ..MaskType::default()
    };
    let shape = |target: &[usize]| {
        let rows: HashSet<_> = target.iter().map(|i| i / 30 % 30).collect();
        let columns: HashSet<_> = target.iter().map(|i| i % 30).collect();
        (rows.len() as f64, columns.len() as f64)
    };
    for seed in 0..30 {
        let types = vec![one(0.15), one(0.4)];
        let masks = default_masks(
            [2, 30, 30],
            Strategy::Multiblock3d(Multiblock3d { types }),
            seed,
            1,
        );
        let [(h0, w0), (h1, w1)] = [0, 1].map(|m: usize| shape(&masks.targets[m][0]));
        // Sides are rounded by half a token at most.
        let bounds = |h: f64, w: f64| ((h - 0.5) / (w + 0.5), (h + 0.5) / (w - 0.5));
        let ((low0, high0), (low1, high1)) = (bounds(h0, w0), bounds(h1, w1));
        assert!(low0 <= high1 && low1 <= high0, "{h0}×{w0} and {h1}×{w1}");
    }
}

#[test]
fn what_is_later_than_the_kept_part_is_target() {
    let kind = MaskType {
        num_blocks: 1,
        max_temporal_keep: 0.5,
        full_complement: true,
        ..MaskType::default()
    };
    let masks = default_masks(
        [7, 14, 14],
        Strategy::Multiblock3d(Multiblock3d { types: vec![kind] }),
        1,
        4,
    );
    for (context, target) in masks.context.iter().zip(&masks.targets[0]) {
        // 7 · 0.5 is 3 steps.
        assert!(context.iter().all(|&i| i < 3 * 14 * 14));
        assert!((3 * 14 * 14..7 * 14 * 14).all(|i| target.binary_search(&i).is_ok()));
    }
}

#[test]
fn blocks_of_clips_reach_every_token() {
    let strategy = Strategy::Multiblock3d(Multiblock3d::default());
    let masks = (0..100).map(|seed| default_masks([8, 14, 14], strategy.clone(), seed, 1));
    let used: HashSet<_> = masks.flat_map(|m| m.targets.concat().concat()).collect();
    assert_eq!(used.len(), 8 * 14 * 14);
}

#[test]
fn published_masks_of_a_batch_have_the_lengths_of_the_original() {
    // Means over the original's runs, with 14×14 tokens (8 time steps in V-JEPA): the specification's numbers.
    type Lengths = fn(&Masks) -> usize;
    let context: Lengths = |masks| masks.context[0].len();
    let target: Lengths = |masks| masks.targets[0][0].len();
    let multiblock = || Strategy::Multiblock(Multiblock::default());
    let type3d = |kind| Strategy::Multiblock3d(Multiblock3d { types: vec![kind] });
    let cases = [
        ([1, 14, 14], multiblock(), 1, 400, 82.23, 33.38),
        ([1, 14, 14], multiblock(), 16, 200, 59.76, 33.34),
        ([1, 16, 16], multiblock(), 16, 200, 82.23, 44.2),
        (
            [8, 14, 14],
            type3d(MaskType::short_range()),
            24,
            40,
            368.6,
            751.8,
        ),
        (
            [8, 14, 14],
            type3d(MaskType::long_range()),
            1,
            300,
            293.0,
            1275.0,
        ),
    ];
    for (grid, strategy, batch, runs, seen, predicted) in cases {
        let masks: Vec<_> = (0..runs)
            .map(|seed| default_masks(grid, strategy.clone(), seed, batch))
            .collect();
        for (length, expected, part) in [(context, seen, 0.10), (target, predicted, 0.05)] {
            let mean = masks.iter().map(|m| length(m) as f64).sum::<f64>() / runs as f64;
            assert!(
                (mean / expected - 1.0).abs() < part,
                "{grid:?} × {batch}: {mean}, {expected} expected"
            );
        }
    }
}

#[test]
fn what_would_search_for_ever_is_refused() {
    let refused = |grid, strategy: Strategy, word: &str| {
        let error = sample(grid, &strategy, Source::Default, 0, 1).unwrap_err();
        assert!(
            matches!(&error, Error::BadMask(text) if text.contains(word)),
            "{error}"
        );
    };
    let multiblock = |change: fn(&mut Multiblock)| {
        let mut parameters = Multiblock {
            min_keep: Some(10),
            ..Multiblock::default()
        };
        change(&mut parameters);
        Strategy::Multiblock(parameters)
    };
    // Targets of 3×3 and 4×3, of which only the latter is enough; then contexts of at most 10.
    refused([1, 8, 8], multiblock(|_| ()), "minKeep");
    refused(
        [1, 14, 14],
        multiblock(|m| m.enc_mask_scale = [0.05, 0.05]),
        "encMaskScale",
    );
    refused([1, 1, 196], multiblock(|m| m.min_keep = None), "2×2");
    refused(
        [1, 14, 14],
        multiblock(|m| m.pred_mask_scale = [0.2, 0.15]),
        "predMaskScale",
    );
    refused(
        [1, 14, 14],
        multiblock(|m| m.aspect_ratio = [f64::NAN, 1.5]),
        "aspectRatio",
    );
    refused(
        [1, 14, 14],
        multiblock(|m| m.num_pred_masks = 0),
        "numPredMasks",
    );
    refused(
        [1, 14, 14],
        multiblock(|m| m.num_pred_masks = 65),
        "numPredMasks",
    );
    refused([0, 14, 14], multiblock(|_| ()), "grid");
    refused([1 << 20, 1 << 20, 1 << 30], multiblock(|_| ()), "grid");

    for batch in [0, 1 << 20, usize::MAX] {
        let strategy = Strategy::Multiblock(Multiblock::default());
        let error = sample([1, 14, 14], &strategy, Source::Default, 0, batch).unwrap_err();
        assert!(error.to_string().contains("batch"), "{error}");
    }

    let type3d = |change: fn(&mut MaskType)| {
        let mut kind = MaskType::default();
        change(&mut kind);
        Strategy::Multiblock3d(Multiblock3d { types: vec![kind] })
    };
    refused(
        [4, 6, 6],
        type3d(|k| (k.spatial_scale, k.aspect_ratio) = ([1.0; 2], [1.0; 2])),
        "no context",
    );
    refused([4, 2, 2], type3d(|_| ()), "spatialScale");
    refused([4, 14, 14], type3d(|k| k.num_blocks = 0), "numBlocks");
    refused([4, 14, 14], type3d(|k| k.num_blocks = 257), "numBlocks");
    refused([4, 14, 14], type3d(|k| k.max_keep = Some(0)), "maxKeep");
    refused(
        [4, 14, 14],
        type3d(|k| k.max_temporal_keep = 0.0),
        "maxTemporalKeep",
    );
    refused(
        [4, 14, 14],
        type3d(|k| (k.full_complement, k.pred_full_complement) = (true, true)),
        "fullComplement",
    );
    refused(
        [4, 14, 14],
        Strategy::Multiblock3d(Multiblock3d { types: vec![] }),
        "types",
    );
    refused([4, 3, 3], Strategy::Tube(Tube::default()), "ratio");
    refused(
        [1, 14, 14],
        Strategy::Random(Random { ratio: [0.5, 1.0] }),
        "ratio",
    );
}

#[test]
fn parameters_are_read_with_the_published_defaults() {
    let read = |text: &str| serde_json::from_str::<Strategy>(text);
    assert_eq!(
        read(r#"{"strategy":"ijepa-multiblock"}"#).unwrap(),
        Strategy::Multiblock(Multiblock::default())
    );
    let short =
        read(r#"{"strategy":"vjepa-multiblock3d","types":[{"maxTemporalKeep":0.5}]}"#).unwrap();
    let kind = MaskType {
        max_temporal_keep: 0.5,
        ..MaskType::short_range()
    };
    assert_eq!(
        short,
        Strategy::Multiblock3d(Multiblock3d { types: vec![kind] })
    );
    let tube = Strategy::Tube(Tube { ratio: 0.75 });
    assert_eq!(read(&serde_json::to_string(&tube).unwrap()).unwrap(), tube);
    for wrong in [
        r#"{"strategy":"ijepa-multiblock","minKep":3}"#,
        r#"{"strategy":"ijepa-multiblock","minKeep":-3}"#,
        r#"{"strategy":"tube","ratio":[0.4,0.6]}"#,
        r#"{"strategy":"block"}"#,
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
