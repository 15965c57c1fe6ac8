//! What targets share: a file that has a header is planned and assembled, for a model small enough that mutation reaches every check.

use std::{io::Cursor, sync::LazyLock};

use webjepa::{
    Result,
    checkpoint::{
        Assembler, EncoderChoice, File, Header, Piece, Plan, Selection, assemble, parameters,
    },
    config::ModelConfig,
};

static CONFIG: LazyLock<ModelConfig> = LazyLock::new(|| {
    let text = r#"{"imageSize":2,"patchSize":1,"channels":1,"hiddenSize":4,"layers":1,"heads":1,"mlpRatio":0.25,
        "predictor":{"hiddenSize":4,"layers":1,"mlpRatio":0.25}}"#;
    ModelConfig::from_json(text).expect("a valid configuration")
});

/// A piece that outlives its assembler.
#[derive(Debug, PartialEq)]
struct Rows {
    name: String,
    first: usize,
    data: Vec<f32>,
}

impl From<Piece<'_>> for Rows {
    fn from(piece: Piece) -> Self {
        Self {
            name: piece.slot.name.clone(),
            first: piece.first,
            data: piece.data.to_vec(),
        }
    }
}

/// What comes out of an accepted file is the whole encoder, in finite numbers, whatever the size of the chunks.
///
/// # Panics
/// Where it is not.
pub fn assembled(header: Header, bytes: &[u8]) {
    let files = [File {
        name: "a checkpoint".into(),
        header,
    }];
    for encoder in [
        EncoderChoice::Auto,
        EncoderChoice::Context,
        EncoderChoice::Target,
    ] {
        for predictor in [false, true] {
            let selection = Selection {
                encoder,
                predictor,
                both: predictor,
                probe: predictor,
            };
            let Ok(plan) = Plan::new(&files, &CONFIG, selection) else {
                continue;
            };
            let slots = plan.slots().to_vec();
            let mut whole = Vec::new();
            let result = assemble(plan.clone(), &mut [Cursor::new(bytes)], |piece| {
                assert!(piece.data.iter().all(|value| value.is_finite()));
                whole.push(Rows::from(piece));
                Ok(())
            });
            let mut again = Vec::new();
            assert_eq!(in_chunks(plan, bytes, &mut again), result);
            assert_eq!(again, whole);
            if result.is_ok() {
                for slot in &slots {
                    let rows = whole.iter().filter(|rows| rows.name == slot.name);
                    let elements: usize = rows.map(|rows| rows.data.len()).sum();
                    assert_eq!(elements, slot.shape.iter().product::<usize>());
                }
                let required = parameters(&CONFIG)
                    .into_iter()
                    .filter(|parameter| !parameter.optional);
                assert!(
                    required
                        .into_iter()
                        .all(|parameter| whole.iter().any(|rows| rows.name == parameter.name))
                );
            }
        }
    }
}

fn in_chunks(plan: Plan, bytes: &[u8], out: &mut Vec<Rows>) -> Result<()> {
    let mut assembler = Assembler::new(plan);
    for index in 0..assembler.plan().reads().len() {
        let read = assembler.plan().reads()[index].clone();
        assembler.begin(index)?;
        for chunk in bytes[read.begin as usize..read.end as usize].chunks(3) {
            assembler.write(chunk, |piece| {
                out.push(Rows::from(piece));
                Ok(())
            })?;
        }
    }
    assembler.finish()
}
