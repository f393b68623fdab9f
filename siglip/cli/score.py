"""Compare every picture with every text: a matrix of probabilities.

A probability is the model's own sigmoid of t * cosine + b: how sure it is
that the text belongs to the picture, each pair judged by itself. JSON gives
cosine and logit too. The texts are used as they are; `siglip classify` puts
labels into sentences.

On a terminal too narrow for the matrix, each picture is shown with its texts,
the best first.

for example:
  siglip score samples --texts "a penguin" "a teapot on a table"
  siglip score samples/cat.jpg --texts-file samples/labels.txt --json
  siglip score "samples/*.png" --texts penguin pig > matrix.tsv
"""

import argparse

from siglip.cli import inputs, output


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip score IMAGES... (--texts TEXT... | --texts-file FILE) [...]"
    inputs.add_image_arguments(parser)
    inputs.add_text_arguments(parser, "texts")
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    texts = inputs.texts(arguments.texts, arguments.texts_file)
    names, failed = inputs.image_names(arguments.images, null=arguments.null)
    total = len(names) + len(failed)
    form = output.form_of(arguments)
    embedder = inputs.load_embedder(arguments)
    text_vectors = embedder.embed_texts(texts).vectors

    columns = [output.Column("image", names), *(output.Column(text, width=8) for text in texts)]
    matrix = form != "table" or output.fits(columns)
    if not matrix:
        columns = [output.Column("image", names), output.Column("text", texts), output.Column("probability")]
    report = output.Report(form, columns, key="images", head={"model": arguments.model})
    for name, vector in inputs.picture_rows(embedder.stream_images, names, failed, bar=form != "table"):
        logits = embedder.logits(vector[None], text_vectors)[0]
        probabilities = embedder.probabilities(vector[None], text_vectors)[0]
        scores = [
            {
                "text": text,
                "probability": output.shortest(probability),
                "cosine": output.shortest(cosine),
                "logit": output.shortest(logit),
            }
            for text, probability, cosine, logit in zip(
                texts, probabilities, text_vectors @ vector, logits, strict=True
            )
        ]
        if matrix:
            rows = [[name, *map(output.shortest, probabilities)]]
        else:
            rows = [[name, texts[i], output.shortest(probabilities[i])] for i in (-logits).argsort(kind="stable")]
        report.add({"image": name, "scores": scores}, rows, best=1 + int(logits.argmax()) if matrix else None)
    report.close(failed)
    return output.report_failures(failed, total)
