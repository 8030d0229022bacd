"""Two texts of many kinds of writing, for what is measured on a backbone at start."""

from typing import Final

CALIBRATION: Final = """\
The harbour lay quiet under a grey morning sky. Two fishing boats had come in before dawn, and the
men were already mending their nets on the stones, talking about the price of diesel and the storm
that the radio had promised for Thursday. "If it turns north," said the older one, "we can go out
again on Friday. If not, we lose the week."

Photosynthesis converts light into chemical energy: 6 CO2 + 6 H2O -> C6H12O6 + 6 O2. In 1771 Joseph
Priestley found that a sprig of mint could restore air which a candle had burnt out.

def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)

Q: How do I reset my password? I have tried the link in the e-mail three times.
A: Please open Settings > Account > Security, choose "Reset password" and wait for the code.

{"order": 48213, "items": [{"sku": "A-17", "count": 2, "price": 19.99}], "paid": true}

Ingredients: 200 g flour, 3 eggs, half a litre of milk, a pinch of salt. Whisk until smooth.
Le train de 18 h 42 part de la voie 7. Der Vertrag gilt ab dem ersten Januar. ¿Dónde está la llave?
1. Who may vote? 2. How long does a term last? 3. What happens if nobody has a majority?
"""

HELD_OUT: Final = """\
My grandmother kept bees behind the orchard wall. In the first warm week of March she would lift the
lids, count the frames that had survived, and write the number in a small blue book. Some years it
was twenty, some years only four; she never said which she had expected.

The committee shall publish its findings within thirty days. A member who disagrees with the
majority may attach a statement of not more than five hundred words, which must be printed with the
report.

SELECT tenant, count(*) AS jobs FROM finished WHERE day >= '2024-02-01' GROUP BY tenant;

for (int i = 0; i < n; i++) { total += weights[i] * inputs[i]; }

User: My invoice from last month shows a charge that I don't recognise. Can you explain it?
Assistant: Of course. The amount of 12.50 is the fee for the second seat that was added on the 9th.

Water boils at a lower temperature on a mountain, because the pressure of the air is less there.
Iron is extracted from its ore by heating it with carbon in a blast furnace.
Hier, nous avons mangé au bord de la mer. Bitte schließen Sie die Tür leise.
"""
